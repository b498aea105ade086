"""The tokenizer of an InternVL2 folder, from `tokenizer.json` or from SentencePiece, without its remote class."""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

from swift_plugins.files import InputError, read_json
from swift_plugins.internvl2.config import IMAGE_TOKEN, WRONG, checkpoint_kind, read_config


def load_tokenizer(model_dir: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer of an InternVL2 folder, without its remote class.

    `tokenizer.json` is taken as it is. From a SentencePiece `tokenizer.model` alone, Phi-3's is transformers' own
    `LlamaTokenizer`; InternLM2's is rebuilt, because it has neither Llama's space prefix nor its ids for the chat
    tokens. Raises `InputError` when there is no tokenizer or it has no `<IMG_CONTEXT>`.
    """
    model_dir = Path(model_dir)
    kind = checkpoint_kind(read_config(model_dir), model_dir / "config.json")
    settings = read_json(model_dir / "tokenizer_config.json") if (model_dir / "tokenizer_config.json").is_file() else {}
    try:
        if (model_dir / "tokenizer.json").is_file():
            tokenizer = PreTrainedTokenizerFast.from_pretrained(model_dir)
        elif not (model_dir / "tokenizer.model").is_file():
            raise InputError("has neither tokenizer.json nor tokenizer.model", model_dir)
        elif kind == "phi3":
            from transformers import LlamaTokenizer

            tokenizer = LlamaTokenizer.from_pretrained(model_dir, trust_remote_code=False)
        else:
            tokenizer = _internlm2_tokenizer(model_dir, settings)
    except InputError:
        raise
    except (OSError, *WRONG) as error:
        raise InputError(f"has a tokenizer that cannot be read: {error}", model_dir) from None
    # A saved tokenizer must not point at remote code again.
    tokenizer.init_kwargs.pop("auto_map", None)
    if IMAGE_TOKEN not in tokenizer.get_vocab():
        raise InputError(f"tokenizer has no {IMAGE_TOKEN}", model_dir)
    return tokenizer


def _internlm2_tokenizer(model_dir: Path, settings: dict) -> PreTrainedTokenizerFast:
    """Rebuild InternLM2's byte-fallback BPE from its SentencePiece file, ids and BOS as its own class gives them."""
    from transformers.convert_slow_tokenizer import import_protobuf

    proto = import_protobuf().ModelProto()
    proto.ParseFromString((model_dir / "tokenizer.model").read_bytes())
    if proto.trainer_spec.model_type != 2:
        raise InputError("is not a BPE SentencePiece model", model_dir / "tokenizer.model")
    pieces = [(piece.piece, piece.score, piece.type) for piece in proto.pieces]
    added = {int(i): token for i, token in settings.get("added_tokens_decoder", {}).items()}
    if not added and (model_dir / "added_tokens.json").is_file():
        added = {i: {"content": token} for token, i in read_json(model_dir / "added_tokens.json").items()}
    # The chat tokens take over ids of unused pieces.
    names = {i: piece for i, (piece, _, _) in enumerate(pieces)} | {i: token["content"] for i, token in added.items()}
    vocab = {names[i]: i for i in range(len(pieces))}
    normal = {piece: score for i, (piece, score, kind) in enumerate(pieces) if kind == 1 and i not in added}
    unknown = proto.trainer_spec.unk_piece
    core = Tokenizer(models.BPE(vocab, _merges(normal, vocab), unk_token=unknown, fuse_unk=True, byte_fallback=True))
    prefix = proto.normalizer_spec.add_dummy_prefix
    steps = [normalizers.Prepend("▁")] if prefix else []
    if proto.normalizer_spec.precompiled_charsmap:
        steps.insert(0, normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap))
    if proto.normalizer_spec.remove_extra_whitespaces:
        steps.insert(0, normalizers.Sequence([normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]))
    core.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    control = [piece for piece, _, kind in pieces if kind in (2, 3) and piece in vocab]
    core.add_tokens([AddedToken(piece, normalized=False, special=True) for piece in control])
    core.add_tokens([_added_token(added[i]) for i in sorted(added)])
    for i, token in added.items():
        if core.token_to_id(token["content"]) != i:
            raise InputError(f"token {token['content']!r} does not fit id {i}", model_dir / "tokenizer_config.json")
    special = {"unk_token": unknown, "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    for key in special:
        value = settings.get(key)
        value = value.get("content") if isinstance(value, dict) else value
        special[key] = value or special[key]
    if settings.get("add_bos_token", True):
        bos = special["bos_token"]
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, core.token_to_id(bos))]
        )
    keep = ("model_max_length", "chat_template", "padding_side")
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        clean_up_tokenization_spaces=False,
        **special,
        **{key: settings[key] for key in keep if settings.get(key) is not None},
    )


def _merges(normal: dict[str, float], vocab: dict[str, int]) -> list[tuple[str, str]]:
    """The merges of a SentencePiece BPE, which stores none: every split of a piece, the best piece first."""
    merges = []
    for piece in sorted(normal, key=lambda p: (-normal[p], vocab[p])):
        splits = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        splits = [pair for pair in splits if pair[0] in normal and pair[1] in normal]
        merges += sorted(splits, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
    return merges


def _added_token(token: dict) -> AddedToken:
    """A token of `added_tokens_decoder`, with the defaults of the original class."""
    flags = {flag: token.get(flag, False) for flag in ("lstrip", "rstrip", "single_word", "normalized")}
    return AddedToken(token["content"], special=token.get("special", True), **flags)
