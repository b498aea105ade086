"""The tokenizer of an InternVL2 folder, from `tokenizer.json` or from SentencePiece, without its remote class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from swift_plugins.files import InputError, read_json
from swift_plugins.internvl2.config import IMAGE_TOKEN, WRONG, checkpoint_kind, read_config

SPACE = "▁"  # what SentencePiece writes for a space


def load_tokenizer(model_dir: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer of an InternVL2 folder, without its remote class.

    The original code asks for the slow class, which reads `tokenizer.model`: in an original folder that file goes
    first and is rebuilt. Elsewhere, and where there is none, `tokenizer.json` is taken as it is. Raises `InputError`
    when there is no tokenizer or it has no `<IMG_CONTEXT>`.
    """
    model_dir = Path(model_dir)
    config = read_config(model_dir)
    kind = checkpoint_kind(config, model_dir / "config.json")
    settings = read_json(model_dir / "tokenizer_config.json") if (model_dir / "tokenizer_config.json").is_file() else {}
    files = [name for name in ("tokenizer.json", "tokenizer.model") if (model_dir / name).is_file()]
    try:
        if not files:
            raise InputError("has neither tokenizer.json nor tokenizer.model", model_dir)
        if files == ["tokenizer.json"] or (len(files) == 2 and config["model_type"] == "internvl"):
            tokenizer = PreTrainedTokenizerFast.from_pretrained(model_dir)
        else:
            tokenizer = _sentencepiece_tokenizer(model_dir, settings, kind)
    except InputError:
        raise
    except (OSError, *WRONG) as error:
        raise InputError(f"has a tokenizer that cannot be read: {error}", model_dir) from None
    # A saved tokenizer must not point at remote code again.
    tokenizer.init_kwargs.pop("auto_map", None)
    if IMAGE_TOKEN not in tokenizer.get_vocab():
        raise InputError(f"tokenizer has no {IMAGE_TOKEN}", model_dir)
    return tokenizer


def slow_text(tokenizer: PreTrainedTokenizerBase, text: str, special: Sequence[str] = (), start: bool = True) -> str:
    """What the slow class of the tokenizer makes of a text before it looks for tokens, one character more at most.

    Llama's slow class (`legacy: false`, Phi-3's) takes a `▁` for a space and starts every text with `▁`, before a chat
    token too, unless that is one of the tokenizer's named special tokens (or of `special`). A fast tokenizer can do so
    before plain text only. `start` is false for text from inside a conversation. Other tokenizers: `text` itself.
    """
    if getattr(tokenizer.backend_tokenizer.pre_tokenizer, "prepend_scheme", None) != "first" or not text:
        return text
    text = text.replace(SPACE, " ")
    return SPACE + text if start and not text.startswith((*tokenizer.all_special_tokens, *special)) else text


def _sentencepiece_tokenizer(model_dir: Path, settings: dict, kind: str) -> PreTrainedTokenizerFast:
    """Rebuild a byte-fallback BPE from its SentencePiece file, with the ids and BOS of the slow class.

    That is `LlamaTokenizer` of transformers 4.37 for Phi-3, which InternVL2 pins, and `InternLM2Tokenizer`.
    """
    from google.protobuf.message import DecodeError
    from transformers.convert_slow_tokenizer import import_protobuf

    proto = import_protobuf().ModelProto()
    try:
        proto.ParseFromString((model_dir / "tokenizer.model").read_bytes())
    except DecodeError:
        raise InputError("is not a whole SentencePiece model", model_dir / "tokenizer.model") from None
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
    # Absent means true in transformers 4.37 and false today.
    legacy = kind != "phi3" or settings.get("legacy") is not False
    _set_spaces(core, proto.normalizer_spec, legacy)
    control = [piece for i, (piece, _, kind) in enumerate(pieces) if kind in (2, 3) and i not in added]
    core.add_tokens([AddedToken(piece, normalized=False, special=True) for piece in control])
    core.add_tokens([_added_token(added[i]) for i in sorted(added)])
    for i, token in added.items():
        if core.token_to_id(token["content"]) != i:
            raise InputError(f"token {token['content']!r} does not fit id {i}", model_dir / "tokenizer_config.json")
    special = {"unk_token": unknown, "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    for key in special:
        special[key] = _content(settings.get(key)) or special[key]
    if settings.get("add_bos_token", True):
        bos = special["bos_token"]
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, core.token_to_id(bos))]
        )
    keep = ("model_max_length", "chat_template", "padding_side")
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        clean_up_tokenization_spaces=False,
        extra_special_tokens=[_content(token) for token in settings.get("additional_special_tokens") or []],
        **special,
        **{key: settings[key] for key in keep if settings.get(key) is not None},
    )


def _set_spaces(core: Tokenizer, spec, legacy: bool) -> None:
    """How spaces become `▁`, and where one is put before a text: see `slow_text` for what is not `legacy`."""
    steps = [normalizers.Precompiled(spec.precompiled_charsmap)] if spec.precompiled_charsmap else []
    if spec.remove_extra_whitespaces:
        steps.insert(0, normalizers.Sequence([normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]))
    prefix = spec.add_dummy_prefix or not legacy
    if not legacy:
        core.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False)
    elif prefix:
        steps.append(normalizers.Prepend(SPACE))  # before every stretch of text between added tokens
    core.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    core.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])


def _content(token: str | dict | None) -> str | None:
    """The text of a token, which configs hold as such or with its flags."""
    return token.get("content") if isinstance(token, dict) else token


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
