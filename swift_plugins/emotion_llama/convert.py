"""Published files of Emotion-LLaMA and MiniGPT-v2 → folders that ms-swift loads, and back.

    C="python -m swift_plugins.emotion_llama.convert"
    $C base --eva eva_vit_g.pth --llama Llama-2-7b-chat-hf --out EL-base [--variant 2]   # the frozen parts, once
    $C adapter --checkpoint Emoation_LLaMA.pth --base EL-base --out EL     # swift infer --adapters EL; or --adapters of
                                                                           # training, to go on from MiniGPT-v2
    $C pth --adapter output/emotion-llama/stage2/checkpoint-… --out ours.pth             # for the original code
    $C video --eva eva_vit_g.pth --out eva-video       # the encoder of data_prep.features --encoder eva_video

An adapter of a MiniGPT-v2 checkpoint has the base's own projections where that has none. Files are read with
`weights_only`; folders are written as safetensors. What is refused is named, and nothing half-written stays.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from swift_plugins import TRAINING, need
from swift_plugins.files import InputError, read_json, run_cli, write_json
from swift_plugins.options import option, parse

TARGETS = r"language_model\..*\.(q_proj|v_proj)"  # of LoRA
SHARD = "5GB"


@dataclass(frozen=True)
class Options:
    """What is made, of what."""

    what: str = option(positional=True, choices=("base", "adapter", "pth", "video"), help="what to make")
    out: Path = option(metavar="PATH", help="the folder (pth: the file) to write; it must not be there")
    eva: Path | None = option(None, metavar="FILE", help="base, video: eva_vit_g.pth")
    llama: Path | None = option(None, metavar="DIR", help="base: Llama-2-7b-chat in Hugging Face format, safetensors")
    checkpoint: Path | None = option(None, metavar="FILE", help="adapter: a .pth of the original code")
    base: Path | None = option(None, metavar="DIR", help="adapter: what `base` made")
    adapter: Path | None = option(None, metavar="DIR", help="pth: an adapter folder, as training saves it")
    variant: int = option(1, choices=(1, 2), help="base: 1 Emotion-LLaMA, 2 Emotion-LLaMAv2 (1)")
    fusion: str = option(
        "conv-attention", metavar="KIND", help="base, variant 2: conv-attention, attention, convolution or none"
    )
    image_size: int = option(448, metavar="PIXELS", help="base: side of the picture (448)")
    heads: int | None = option(
        None, metavar="N", help="base, video: attention heads of the file's encoder (width / 88)"
    )
    alpha: float | None = option(None, help="adapter: LoRA's alpha (what the file says, else 16)")
    set: tuple[str, ...] = option(
        (), metavar="NAME=NUMBER", help="base: other sizes of the configuration, for small models"
    )
    seed: int = option(42, help="base: of the projections, which no file has (42)")


def main() -> int:
    """Make one thing."""
    options = parse(Options, __doc__, "python -m swift_plugins.emotion_llama.convert")
    needs = {"base": ("eva", "llama"), "adapter": ("checkpoint", "base"), "pth": ("adapter",), "video": ("eva",)}
    for name in needs[options.what]:
        if getattr(options, name) is None:
            raise InputError(f"{options.what} needs --{name}")
    if options.out.exists():
        raise InputError("is there already", options.out)
    if not options.out.absolute().parent.is_dir():
        raise InputError("its folder is not there", options.out)
    need(*TRAINING)
    makers: dict[str, Callable[[Options], None]] = {"base": base, "adapter": adapter, "pth": pth, "video": video}
    makers[options.what](options)
    print(f"wrote {options.out}")
    return 0


class _folder:
    """A folder beside the wanted one, renamed to it when everything is in it."""

    def __init__(self, out: Path):
        self.out = out

    def __enter__(self) -> Path:
        self.made = Path(tempfile.mkdtemp(prefix=f".{self.out.name}.", dir=self.out.absolute().parent))
        return self.made

    def __exit__(self, kind, error, trace):
        if kind is None:
            self.made.chmod(0o755)
            self.made.rename(self.out)
        else:
            shutil.rmtree(self.made, ignore_errors=True)


def base(options: Options) -> None:
    """The frozen parts and fresh projections in one folder."""
    import torch
    from transformers import LlamaConfig

    from swift_plugins.emotion_llama import EmotionLlamaConfig, checkpoints
    from swift_plugins.internvl2 import weight_files

    tensors, _ = checkpoints.read_tensors(options.eva)
    whole = checkpoints.vision_config(tensors, options.eva, options.image_size, options.heads)
    vision = type(whole)(**{**whole.to_dict(), "num_hidden_layers": whole.num_hidden_layers - 1})
    seen = checkpoints.vision_tensors(tensors, vision, options.eva)
    raw = read_json(options.llama / "config.json")
    if raw.get("model_type") != "llama":
        raise InputError(f"is a {raw.get('model_type')}, not a Llama", options.llama)
    try:
        config = EmotionLlamaConfig(
            vision_config=vision.to_dict(),
            text_config=LlamaConfig(**raw).to_dict(),
            variant=options.variant,
            fusion=options.fusion,
            **_sizes(options.set),
            architectures=["EmotionLlama"],
        )
    except ValueError as error:
        raise InputError(str(error)) from None
    for name in ("bos_token_id", "eos_token_id"):
        setattr(config, name, raw.get(name))
    config.pad_token_id = 0  # as the original pads
    wanted = checkpoints.empty(config).state_dict()
    dtype = seen["embeddings.class_embedding"].dtype
    state = {f"vision_tower.{name}": value.contiguous() for name, value in seen.items()}
    for path in weight_files(options.llama):
        part, _ = checkpoints.read_tensors(path)
        state |= {f"language_model.{name}": value for name, value in part.items() if not checkpoints.UNUSED.match(name)}
    checkpoints.check_shapes(state, wanted, options.llama)
    generator = torch.Generator().manual_seed(options.seed)
    for name in wanted.keys() - state.keys():
        if name.startswith(("vision_tower.", "language_model.")):
            raise InputError(f"{name} is missing", options.llama)
        state[name] = _fresh(wanted, name, generator).to(dtype)
    with _folder(options.out) as folder:
        _save(state, folder)
        config.dtype = str(dtype).removeprefix("torch.")
        config.save_pretrained(folder)
        for path in sorted(options.llama.iterdir()):
            if (
                path.name.startswith(("tokenizer", "special_tokens", "added_tokens"))
                or path.name == "generation_config.json"
            ):
                shutil.copyfile(path, folder / path.name)


def _sizes(given: tuple[str, ...]) -> dict[str, int]:
    known = ("stream_width", "audio_width", "fusion_hidden", "fusion_width", "fusion_out")
    sizes = {}
    for one in given:
        name, _, value = one.partition("=")
        if name not in known or not value.isdecimal() or not int(value):
            raise InputError(f"--set {one}: not one of {', '.join(known)} and a number, as in stream_width=24")
        sizes[name] = int(value)
    return sizes


def _fresh(wanted, name: str, generator):
    """A projection's start, as PyTorch's own layers draw it: uniform within 1/√inputs."""
    import torch

    weight = wanted[name.rpartition(".")[0] + ".weight"]
    bound = weight[0].numel() ** -0.5
    return torch.empty(wanted[name].shape).uniform_(-bound, bound, generator=generator)


def _save(state: dict, folder: Path) -> None:
    """Safetensors in shards, with an index where there are several."""
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors.torch import save_file

    split = split_torch_state_dict_into_shards(dict(sorted(state.items())), max_shard_size=SHARD)
    for file, names in split.filename_to_tensors.items():
        save_file({name: state[name].contiguous() for name in names}, folder / file, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        write_json(folder / "model.safetensors.index.json", index)


def adapter(options: Options) -> None:
    """A trained state as a PEFT adapter: LoRA, and the projections as modules that are saved."""
    from safetensors.torch import save_file

    from swift_plugins.emotion_llama import EmotionLlamaConfig, checkpoints
    from swift_plugins.emotion_llama.register import PROJECTIONS
    from swift_plugins.internvl2 import weight_files

    made = options.base / "config.json"
    if not made.is_file() or read_json(made).get("model_type") != EmotionLlamaConfig.model_type:
        raise InputError("is not a folder that `base` made", options.base)
    config = EmotionLlamaConfig.from_pretrained(options.base)
    wanted = checkpoints.empty(config).state_dict()
    modules = [name for name in PROJECTIONS[config.variant] if any(key.startswith(f"{name}.") for key in wanted)]
    tensors, settings = checkpoints.read_tensors(options.checkpoint)
    found, ignored = checkpoints.adapter_tensors(tensors, modules, options.checkpoint)
    ranks = set()
    for name, value in found.items():
        bare = name.removeprefix("base_model.model.")
        if ".lora_" in bare:
            weight = wanted.get(bare.split(".lora_")[0] + ".weight")
            rows, columns = weight.shape if weight is not None else (0, 0)
            rank, fits = (
                (value.shape[0], value.shape[1] == columns)
                if ".lora_A." in bare
                else (value.shape[1], value.shape[0] == rows)
            )
            if not fits:
                raise InputError(f"{name} is {[*value.shape]}, and its layer {[rows, columns]}", options.checkpoint)
            ranks.add(rank)
        else:
            checkpoints.check_shapes({bare: value}, wanted, options.checkpoint)
    if len(ranks) != 1:
        raise InputError(f"its LoRA has ranks {sorted(ranks)}: one is expected", options.checkpoint)
    layers = {name.split(".lora_")[0] for name in found if ".lora_" in name}
    expected = 2 * 2 * config.text_config.num_hidden_layers
    if sum(".lora_" in name for name in found) != expected or len(layers) != expected // 2:
        raise InputError(
            f"its LoRA is not on q_proj and v_proj of all {config.text_config.num_hidden_layers} layers",
            options.checkpoint,
        )
    kept = {}  # of the base, for what a MiniGPT-v2 file lacks
    for path in weight_files(options.base):
        part, _ = checkpoints.read_tensors(path)
        kept |= {name: value for name, value in part.items() if name.split(".")[0] in modules}
    missing = {f"base_model.model.{name}": value for name, value in kept.items()}
    added = missing.keys() - found.keys()
    rank = ranks.pop()
    peft = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(options.base.absolute()),
        "r": rank,
        "lora_alpha": _alpha(options, settings),
        "lora_dropout": 0.05,
        "bias": "none",
        "target_modules": TARGETS,
        "modules_to_save": modules,
    }
    with _folder(options.out) as folder:
        state = {name: value.contiguous() for name, value in (missing | found).items()}
        save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        write_json(folder / "adapter_config.json", peft)
        told = {"model": peft["base_model_name_or_path"], "model_type": "emotion_llama", "template": "emotion_llama"}
        write_json(folder / "args.json", told | {"tuner_type": "lora", "swift_version": version("ms-swift")})
    print(
        f"{len(found)} tensors, LoRA of rank {rank}, alpha {peft['lora_alpha']:g}; {ignored} of the unused classifier "
        f"ignored; {len(added)} of projections that the file lacks are the base's"
    )


def _alpha(options: Options, settings: dict) -> float:
    model = settings.get("model")
    said = model.get("lora_alpha") if isinstance(model, dict) else None
    alpha = options.alpha or said or 16
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or alpha <= 0:
        raise InputError(f"lora_alpha {alpha!r} is not a number above 0", options.checkpoint)
    return alpha


def pth(options: Options) -> None:
    """An adapter's tensors under their original names, for `torch.load` of the original code."""
    import torch

    from swift_plugins.emotion_llama import checkpoints

    path = options.adapter / "adapter_model.safetensors"
    tensors, _ = checkpoints.read_tensors(path)
    found = checkpoints.original_tensors(tensors, path)
    config = read_json(options.adapter / "adapter_config.json")
    settings = {"model": {"lora_r": config.get("r"), "lora_alpha": config.get("lora_alpha")}}
    made = options.out.with_name(f".{options.out.name}.part")
    try:
        torch.save({"model": found, "config": json.loads(json.dumps(settings))}, made)
        made.rename(options.out)
    finally:
        made.unlink(missing_ok=True)


def video(options: Options) -> None:
    """The whole encoder with its final norm at its own resolution, as Blip2VisionModel."""
    from swift_plugins.emotion_llama import checkpoints

    tensors, _ = checkpoints.read_tensors(options.eva)
    grid = round((tensors["pos_embed"].shape[1] - 1) ** 0.5) if "pos_embed" in tensors else 0
    patch = tensors["patch_embed.proj.weight"].shape[-1] if "patch_embed.proj.weight" in tensors else 1
    config = checkpoints.vision_config(tensors, options.eva, grid * patch, options.heads)
    found = checkpoints.vision_tensors(tensors, config, options.eva)
    config.architectures = ["Blip2VisionModel"]
    config.dtype = str(found["embeddings.class_embedding"].dtype).removeprefix("torch.")
    with _folder(options.out) as folder:
        _save(found, folder)
        config.save_pretrained(folder)


if __name__ == "__main__":
    run_cli(main)
