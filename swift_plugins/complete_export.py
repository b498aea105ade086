"""Complete an exported folder for stock transformers: tiles, chat template, processor (shell/export.sh runs this).

python -m swift_plugins.complete_export FOLDER
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from swift_plugins.files import atomic_open, read_json, run_cli, write_json
from swift_plugins.options import option, parse


@dataclass(frozen=True)
class Options:
    """What a user may choose."""

    folder: Path = option(positional=True, help="what swift export wrote; a model of another kind is left as it is")


def main(argv: Sequence[str] | None = None) -> None:
    """Write what stands beside the exported weights; `InputError` for a folder that holds no model."""
    options = parse(Options, __doc__, "python -m swift_plugins.complete_export", argv)
    complete(options.folder)


def complete(folder: Path) -> None:
    """Write the processor's files and the chat template that the model was trained with."""
    from swift_plugins.internvl2.config import (  # torch and transformers, which take seconds
        chat_template,
        checkpoint_kind,
        preprocessor_config,
        processor_tokens,
        read_config,
        tile_side,
        video_preprocessor_config,
    )
    from swift_plugins.internvl2.tokenizer import load_tokenizer, slow_text
    from swift_plugins.internvl2.weights import native_config

    config = read_config(folder)
    if config.get("model_type") != "internvl":
        return
    native = native_config(folder)
    side = tile_side(native)
    write_json(folder / "preprocessor_config.json", preprocessor_config(side))
    write_json(folder / "video_preprocessor_config.json", video_preprocessor_config(side))
    write_json(
        folder / "processor_config.json",
        {"processor_class": "InternVLProcessor", "image_seq_length": native.image_seq_length},
    )
    tokenizer = load_tokenizer(folder)
    settings = folder / "tokenizer_config.json"
    write_json(settings, processor_tokens(tokenizer.get_vocab()) | read_json(settings))
    start = slow_text(tokenizer, "<|user|>").removesuffix("<|user|>")
    if tokenizer("").input_ids:
        start = "{{ bos_token }}" + start
    template = chat_template(checkpoint_kind(config, folder / "config.json"), start)
    with atomic_open(folder / "chat_template.jinja") as file:
        file.write(template)


if __name__ == "__main__":
    run_cli(main)
