"""The ms-swift model type `emoverse`: an InternVL2 folder in transformers' own classes, without remote code."""

from __future__ import annotations

import sys
from pathlib import Path

from swift.model import ModelLoader, ModelMeta, register_model
from transformers import InternVLForConditionalGeneration

from swift_plugins.files import InputError
from swift_plugins.internvl2.config import KINDS, checkpoint_kind, read_config
from swift_plugins.internvl2.tokenizer import load_tokenizer
from swift_plugins.internvl2.weights import LAYOUTS, check_weights, native_config


def _or_exit(function, *args):
    """Call `function`; end the process with one line and status 2 where ms-swift would print its own traceback."""
    try:
        return function(*args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)


class EmoverseMeta(ModelMeta):
    """At module level, as the loader: `swift app` pickles it for the process that it starts."""

    def check_requires(self, model_info=None):
        # ms-swift calls this once the folder is known and before it looks at `template`.
        if model_info is not None:
            folder = Path(model_info.model_dir)
            self.template = KINDS[_or_exit(checkpoint_kind, read_config(folder), folder / "config.json")].template
        super().check_requires(model_info)


class EmoverseLoader(ModelLoader):
    default_trust_remote_code = False

    def get_config(self, model_dir):
        return _or_exit(native_config, model_dir)

    def get_processor(self, model_dir, config):
        # The tokenizer only: transformers' InternVL processor needs torchvision, our template needs no processor.
        return _or_exit(load_tokenizer, model_dir)

    def get_model(self, model_dir, config, processor, model_kwargs):
        raw = read_config(model_dir)
        self.auto_model_cls = InternVLForConditionalGeneration
        if raw["model_type"] == "internvl_chat":
            if not self.return_dummy_model:
                _or_exit(check_weights, model_dir, config)
            self.auto_model_cls = LAYOUTS[checkpoint_kind(raw)]
        model = super().get_model(model_dir, config, processor, model_kwargs)
        # Chat turns end with a token that not every original generation_config.json lists.
        end = processor.convert_tokens_to_ids(KINDS[checkpoint_kind(raw)].end)
        stops = model.generation_config.eos_token_id
        stops = [] if stops is None else [stops] if isinstance(stops, int) else list(stops)
        model.generation_config.eos_token_id = [*stops, *({end} - set(stops))]
        return model


def register() -> None:
    """Register the ms-swift model type `emoverse`: an InternVL2 folder, loaded as above, tokenizer only."""
    register_model(
        EmoverseMeta(
            "emoverse",
            [],
            EmoverseLoader,
            template=None,
            is_multimodal=True,
            model_arch="llava_hf",  # where the native InternVL keeps language model, projector and vision tower
        ),
        exist_ok=True,
    )
