"""Tiny random files in the layout of Emotion-LLaMA's published ones: what its converter and its features start from.

    python -m data_prep.demo.emotion_llama --rows AMT --out DIR

writes DIR/eva.pth (EVA-CLIP-g's keys), DIR/llama (a Llama folder, its tokenizer of the words of the rows), DIR/hubert
and DIR/whisper. Nothing in them was trained; the same rows and seed give the same numbers. shell/emotion_llama_demo.sh
and shell/emotion_llama_v2_demo.sh train on them, the tests of Emotion-LLaMA take theirs from here, too.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    HubertConfig,
    HubertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Wav2Vec2FeatureExtractor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from swift_plugins.files import InputError, read_rows, run_cli
from swift_plugins.options import option, parse

SPECIAL = ("<unk>", "<s>", "</s>")
Draw = Callable[..., torch.Tensor]  # (*shape, scale=0.2) of the normal distribution
VOCABULARY = 800  # tokens of a tokenizer made of texts


@dataclass(frozen=True)
class Options:
    """What a user may choose."""

    rows: tuple[Path, ...] = option(metavar="DIR", help="folders of AMT rows: their texts give the tokens")
    out: Path = option(metavar="DIR", help="a new folder")
    seed: int = option(0, help="another seed gives other numbers (0)", metavar="N")


def drawer(seed: int) -> Draw:
    """Draws tensors, one after the other, from a seed."""
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape, scale=0.2: torch.randn(*shape, generator=generator) * scale


def tokenizer(texts: Iterable[str] = ()) -> PreTrainedTokenizerFast:
    """SentencePiece's way, a token for every byte: <unk> <s> </s>, `▁` for a space and one before every text.

    With texts also their frequent words and parts of words, `VOCABULARY` tokens in all.
    """
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = ["▁", *map(chr, range(33, 127))]
    vocab = {token: number for number, token in enumerate([*SPECIAL, *bytes_, *letters])}
    merges: list[tuple[str, str]] = []
    if texts := list(texts):
        learned = Tokenizer(models.BPE())
        learned.normalizer = normalizers.Replace(" ", "▁")
        # A word with the blank before it; punctuation by itself.
        learned.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Metaspace(prepend_scheme="always"), pre_tokenizers.Punctuation()]
        )
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY - len(vocab) + len(letters), initial_alphabet=letters, show_progress=False
        )
        learned.train_from_iterator(texts, trainer)
        known = json.loads(learned.to_str())["model"]["merges"]
        for left, right in known:
            if left in vocab and right in vocab:
                vocab.setdefault(left + right, len(vocab))
                merges.append((left, right))
    core = Tokenizer(models.BPE(vocab, merges, byte_fallback=True, unk_token="<unk>"))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", add_bos_token=True
    )


def eva(draw: Draw, width: int = 32, mlp: int = 139, blocks: int = 3) -> dict[str, torch.Tensor]:
    """The tensors of `eva_vit_g.pth` for pictures of 28 pixels a side, with the classifier that nobody uses."""
    made = {"cls_token": draw(1, 1, width), "pos_embed": draw(1, 5, width), "norm.weight": 1 + draw(width)}
    made |= {"patch_embed.proj.weight": draw(width, 3, 14, 14, scale=0.05), "patch_embed.proj.bias": draw(width)}
    made |= {"norm.bias": draw(width), "head.weight": draw(8, width), "head.bias": draw(8)}
    for block in range(blocks):
        name = f"blocks.{block}"
        for norm in ("norm1", "norm2"):
            made |= {f"{name}.{norm}.weight": 1 + draw(width), f"{name}.{norm}.bias": draw(width)}
        made |= {f"{name}.attn.qkv.weight": draw(3 * width, width), f"{name}.attn.q_bias": draw(width)}
        made |= {f"{name}.attn.v_bias": draw(width), f"{name}.attn.proj.weight": draw(width, width)}
        made |= {f"{name}.attn.proj.bias": draw(width), f"{name}.mlp.fc1.weight": draw(mlp, width)}
        made |= {f"{name}.mlp.fc1.bias": draw(mlp), f"{name}.mlp.fc2.weight": draw(width, mlp)}
        made |= {f"{name}.mlp.fc2.bias": draw(width)}
    return made


def llama(folder: Path, words: PreTrainedTokenizerFast, seed: int = 0, **sizes: float) -> None:
    """Save a Llama that knows nothing, and its tokenizer. sizes: settings of LlamaConfig."""
    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "initializer_range": 0.2} | sizes
    ids = {"bos_token_id": 1, "eos_token_id": 2}
    config = LlamaConfig(num_attention_heads=4, vocab_size=len(words), max_position_embeddings=4096, **ids, **sizes)
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)


def hubert(folder: Path, seed: int = 0, width: int = 32, convolutions: int = 16) -> None:
    """Save a HuBERT that knows nothing, built as the large ones are, and its preprocessing.

    Pitch, pace and loudness show in the mean of its random features all the same.
    """
    torch.manual_seed(seed)
    layers = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": width * 3 // 2}
    sounds = {"conv_dim": [convolutions] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    large = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "initializer_range": 0.2}
    HubertModel(HubertConfig(hidden_size=width, **layers, **sounds, **large)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)


def whisper(folder: Path, seed: int = 0, width: int = 32, bins: int = 20, seconds: int = 2) -> None:
    """Save a Whisper that knows nothing, for `bins` of mel and windows of `seconds`, and its preprocessing."""
    torch.manual_seed(seed)
    layers = {
        f"{part}_{name}": 4 if name == "attention_heads" else width * 3 // 2
        for part in ("encoder", "decoder")
        for name in ("attention_heads", "ffn_dim")
    }
    sizes = {"d_model": width, "encoder_layers": 2, "decoder_layers": 1, "vocab_size": 100, "init_std": 0.2}
    tokens = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 1)
    window = {"num_mel_bins": bins, "max_source_positions": 50 * seconds}
    WhisperModel(WhisperConfig(**layers, **sizes, **tokens, **window)).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=bins, chunk_length=seconds).save_pretrained(folder)


def texts(folders: Iterable[Path]) -> Iterable[str]:
    """Queries and answers of the training rows of folders."""
    for folder in folders:
        for path in sorted(folder.glob("*.train.jsonl")):
            for _, row in read_rows(path):
                yield from (row.get("query", ""), row.get("response", ""))


def main() -> int:
    """Write the files of the demo."""
    options = parse(Options, __doc__, prog="python -m data_prep.demo.emotion_llama")
    said = list(texts(options.rows))
    if not said:
        raise InputError("holds no training rows (*.train.jsonl)", options.rows[0])
    if options.out.exists():
        raise InputError("is there already", options.out)
    options.out.absolute().parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{options.out.name}.", dir=options.out.absolute().parent))
    try:
        torch.save(eva(drawer(options.seed)), part / "eva.pth")
        sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "initializer_range": 0.05}
        llama(part / "llama", tokenizer(said), options.seed, **sizes)
        hubert(part / "hubert", options.seed, width=64, convolutions=32)
        whisper(part / "whisper", options.seed, width=64, bins=40, seconds=4)
        part.chmod(0o755)
        os.rename(part, options.out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    run_cli(main)
