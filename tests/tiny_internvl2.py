"""Tiny random InternVL2 checkpoints in the original layout, for tests: both language models, any tile size.

tiny_checkpoint(tmp_path / "model", "phi3")
sentencepiece_checkpoint(tmp_path / "model")        # with tokenizer.model, as InternVL2-4B is published
"""

import json
import string
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import InternVLForConditionalGeneration, PreTrainedTokenizerFast

from benchmarks.internvl2_sizes import tiny_config
from swift_plugins.internvl2 import build_config, save_internvl2_original

SPECIAL = {
    "phi3": ["<unk>", "<s>", "</s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"],
    "internlm2": ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"],
}
IMAGE_TOKENS = ["<img>", "</img>", "<IMG_CONTEXT>"]


def tiny_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """One token per byte, and the chat and picture tokens of `kind`."""
    special = SPECIAL[kind] + IMAGE_TOKENS
    vocab = {token: i for i, token in enumerate(special + sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(vocab, [], unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="<|end|>" if kind == "phi3" else "<|im_end|>",
        pad_token="<|endoftext|>" if kind == "phi3" else "</s>",
        unk_token="<unk>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def tiny_checkpoint(folder: Path, kind: str, side: int = 56, seed: int = 0, max_shard_size: str = "5GB") -> Path:
    """Write a random checkpoint and return its folder."""
    tokenizer = tiny_tokenizer(kind)
    image_token_id = tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    return _random_checkpoint(
        folder, tiny_config(kind, side, len(tokenizer)), image_token_id, tokenizer, seed, max_shard_size
    )


def _random_checkpoint(folder, config, image_token_id, tokenizer, seed=0, max_shard_size="5GB") -> Path:
    torch.manual_seed(seed)
    model = InternVLForConditionalGeneration(build_config(config, image_token_id))
    for name, parameter in model.named_parameters():  # the default initialisation leaves answers all alike
        if parameter.dim() > 1 and "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.3)
    save_internvl2_original(model, config, tokenizer, folder, max_shard_size=max_shard_size)
    return folder


# Words of the tests' conversations. Each is a piece, and so is every beginning of it: BPE needs them on its way there.
WORDS = ["▁Joy", "oy", "Then", "▁Then", "Be", "▁Be", "▁brief", "What", "▁is", "▁shown", "▁He", "▁▁", "▁a", "Frame"]
WORDS += ["5_surprise,2"]
_HOLES = [f"placeholder{i}" for i in range(1, 7)]
CHAT_TOKENS = {
    "phi3": [f"<|{name}|>" for name in ("endoftext", "assistant", *_HOLES[:4], "system", "end", *_HOLES[4:], "user")],
    "internlm2": ["<|im_end|>", "<|im_start|>"],
}
PICTURE_TOKENS = [*IMAGE_TOKENS, "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"]


def vocabulary(kind: str) -> list[tuple[str, int]]:
    """Pieces with their SentencePiece types, in the order of Llama's: control, bytes, words, letters.

    InternLM2's knows line breaks, alone and in words; Llama's spells them as bytes.
    """
    words = [*WORDS, "\n\n", "\nThen"] if kind == "internlm2" else WORDS
    words = list(dict.fromkeys(word[:end] for word in words for end in range(2, len(word) + 1)))
    letters = ["▁", *string.ascii_letters, *string.digits, *string.punctuation, *("\n" * (kind == "internlm2"))]
    control = [("<unk>", 2), ("<s>", 3), ("</s>", 3)]
    return control + [(f"<0x{i:02X}>", 6) for i in range(256)] + [(piece, 1) for piece in words + letters]


def write_sentencepiece(folder: Path, kind: str = "phi3", rstrip: bool = True, **settings) -> Path:
    """`tokenizer.model` and `tokenizer_config.json` as in InternVL2-4B and 8B: chat tokens, picture tokens.

    `rstrip` is the flag of Phi-3's tokens, `settings` are further keys of tokenizer_config.json (None: left out).
    """
    from transformers.convert_slow_tokenizer import import_protobuf

    proto, pieces, phi3 = import_protobuf().ModelProto(), vocabulary(kind), kind == "phi3"
    proto.trainer_spec.model_type, proto.trainer_spec.byte_fallback = 2, True
    proto.trainer_spec.vocab_size = len(pieces)
    proto.normalizer_spec.name, proto.normalizer_spec.add_dummy_prefix = "identity", phi3
    proto.normalizer_spec.remove_extra_whitespaces = False
    for i, (piece, piece_type) in enumerate(pieces):
        proto.pieces.add(piece=piece, score=-float(i) if piece_type == 1 else 0.0, type=piece_type)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString())
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    added = {str(i): flags | {"content": token} for i, token in enumerate(["<unk>", "<s>", "</s>"])}
    for i, token in enumerate(CHAT_TOKENS[kind] + PICTURE_TOKENS, len(pieces)):
        added[str(i)] = flags | {"content": token}
        if phi3 and token in CHAT_TOKENS["phi3"][1:]:
            added[str(i)]["rstrip"] = rstrip
    config = {"add_bos_token": True, "add_eos_token": False, "added_tokens_decoder": added, "bos_token": "<s>"}
    config |= {"additional_special_tokens": PICTURE_TOKENS, "clean_up_tokenization_spaces": False, "unk_token": "<unk>"}
    config |= {"model_max_length": 8192, "padding_side": "left", "sp_model_kwargs": {}}
    if phi3:
        added["2"] |= {"rstrip": rstrip, "special": False}
        config |= {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "tokenizer_class": "LlamaTokenizer"}
        config |= {"legacy": False}
    else:
        config |= {"eos_token": "</s>", "pad_token": "</s>", "tokenizer_class": "InternLM2Tokenizer"}
        config |= {"auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]}}
    config = {key: value for key, value in (config | settings).items() if value is not None}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))
    return folder


def sentencepiece_checkpoint(folder: Path, kind: str = "phi3", **settings) -> Path:
    """A random checkpoint with a SentencePiece tokenizer only; `settings` are those of `write_sentencepiece`."""
    write_sentencepiece(folder, kind, **settings)
    tokens = [piece for piece, _ in vocabulary(kind)] + CHAT_TOKENS[kind] + PICTURE_TOKENS
    return _random_checkpoint(folder, tiny_config(kind, vocab_size=len(tokens)), tokens.index("<IMG_CONTEXT>"), None)
