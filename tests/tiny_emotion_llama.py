"""A tiny random Emotion-LLaMA in the layout of the published files: `eva_vit_g.pth`, a Llama folder, a trained state.

tiny_files(tmp_path / "files")                       # eva.pth, llama/, state.pth
base = tiny_base(tmp_path, variant=2)                # what the converter makes of them
"""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from swift_plugins.emotion_llama import EmotionLlamaConfig, checkpoints, convert
from swift_plugins.emotion_llama.register import PROJECTIONS

EVA, LLM, STREAM, AUDIO = 32, 48, 24, 40
SIZES = ["--heads", "4", "--image-size", "56", "--set", f"stream_width={STREAM}", f"audio_width={AUDIO}"]
SIZES += ["fusion_hidden=24", "fusion_width=12", "fusion_out=20"]


def tokenizer() -> PreTrainedTokenizerFast:
    """SentencePiece's way, a token for every byte: <unk> <s> </s>, `▁` for a space and one before every text."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = ["▁", *map(chr, range(33, 127))]
    vocab = {token: number for number, token in enumerate(["<unk>", "<s>", "</s>", *bytes_, *letters])}
    core = Tokenizer(models.BPE(vocab, [], byte_fallback=True, unk_token="<unk>"))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in ("<unk>", "<s>", "</s>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", add_bos_token=True
    )


def tiny_files(folder: Path, variant: int = 1, seed: int = 0) -> Path:
    """Write the three files; projections of the trained state as the variant has them."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float = 0.2) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * scale

    eva = {"cls_token": draw(1, 1, EVA), "pos_embed": draw(1, 5, EVA), "norm.weight": 1 + draw(EVA)}
    eva |= {"patch_embed.proj.weight": draw(EVA, 3, 14, 14, scale=0.05), "patch_embed.proj.bias": draw(EVA)}
    eva |= {"norm.bias": draw(EVA), "head.weight": draw(8, EVA), "head.bias": draw(8)}
    for block in range(3):
        name = f"blocks.{block}"
        for norm in ("norm1", "norm2"):
            eva |= {f"{name}.{norm}.weight": 1 + draw(EVA), f"{name}.{norm}.bias": draw(EVA)}
        eva |= {f"{name}.attn.qkv.weight": draw(3 * EVA, EVA), f"{name}.attn.q_bias": draw(EVA)}
        eva |= {f"{name}.attn.v_bias": draw(EVA), f"{name}.attn.proj.weight": draw(EVA, EVA)}
        eva |= {f"{name}.attn.proj.bias": draw(EVA), f"{name}.mlp.fc1.weight": draw(139, EVA)}
        eva |= {f"{name}.mlp.fc1.bias": draw(139), f"{name}.mlp.fc2.weight": draw(EVA, 139)}
        eva |= {f"{name}.mlp.fc2.bias": draw(EVA)}
    torch.save(eva, folder / "eva.pth")
    words = tokenizer()
    config = LlamaConfig(
        hidden_size=LLM,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=len(words),
        max_position_embeddings=4096,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder / "llama")
    words.save_pretrained(folder / "llama")
    torch.save({"model": trained(variant, draw), "config": {"model": {"lora_alpha": 1}}}, folder / "state.pth")
    return folder


def trained(variant: int, draw) -> dict[str, torch.Tensor]:
    """The trained part under its original names, two tensors of the unused classifier with it."""
    config = EmotionLlamaConfig(
        vision_config={"hidden_size": EVA, "intermediate_size": 139, "num_attention_heads": 4, "image_size": 56},
        text_config={"hidden_size": LLM, "intermediate_size": 96, "num_attention_heads": 4, "vocab_size": 354},
        variant=variant,
        stream_width=STREAM,
        audio_width=AUDIO,
        fusion_hidden=24,
        fusion_width=12,
        fusion_out=20,
    )
    names = checkpoints.empty(config).state_dict()
    state = {name: draw(*value.shape) for name, value in names.items() if name.split(".")[0] in PROJECTIONS[variant]}
    for layer in range(2):
        for module in ("q_proj", "v_proj"):
            name = f"llama_model.base_model.model.model.layers.{layer}.self_attn.{module}"
            state |= {f"{name}.lora_A.weight": draw(4, LLM), f"{name}.lora_B.weight": draw(LLM, 4)}
    return state | {"attention.fc_att.weight": draw(7, 128), "attention.fc_att.bias": draw(7)}


def converted(*arguments: object) -> str:
    """Run the converter in this process; what it printed."""
    before, sys.argv = sys.argv, ["convert", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            convert.main()
    finally:
        sys.argv = before
    return said.getvalue()


def tiny_base(folder: Path, variant: int = 1, *more: object) -> Path:
    """The files in `folder`/files, and the base that the converter makes of them."""
    files = tiny_files(folder / "files", variant)
    base = folder / "base"
    flags = ["--variant", variant, "--out", base, *SIZES, *more]
    converted("base", "--eva", files / "eva.pth", "--llama", files / "llama", *flags)
    return base
