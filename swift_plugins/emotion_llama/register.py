"""The ms-swift model type `emotion_llama`: a folder that `swift_plugins.emotion_llama.convert` made."""

from __future__ import annotations

from swift.model import ModelLoader, ModelMeta, MultiModelKeys, register_model, register_model_arch
from transformers import AutoConfig, AutoTokenizer

from swift_plugins.emotion_llama import template
from swift_plugins.emotion_llama.config import EmotionLlamaConfig
from swift_plugins.emotion_llama.model import EmotionLlama

PROJECTIONS = {
    1: ("llama_proj", "feats_llama_proj1", "feats_llama_proj2", "feats_llama_proj3", "cls_tk_llama_proj"),
    2: ("llama_proj", "llama_proj_video", "llama_proj_audio", "llama_proj_fusion", "conv_pro_module"),
}


class EmotionLlamaLoader(ModelLoader):
    """At module level: `swift app` pickles it for the process that it starts."""

    default_trust_remote_code = False

    def get_config(self, model_dir):
        return EmotionLlamaConfig.from_pretrained(model_dir)

    def get_processor(self, model_dir, config):
        tokenizer = AutoTokenizer.from_pretrained(model_dir, trust_remote_code=False)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)  # as the original pads
        return tokenizer

    def get_model(self, model_dir, config, processor, model_kwargs):
        self.auto_model_cls = EmotionLlama
        return super().get_model(model_dir, config, processor, model_kwargs)


def register() -> None:
    """Register the configuration with transformers, model type and template with ms-swift."""
    AutoConfig.register(EmotionLlamaConfig.model_type, EmotionLlamaConfig, exist_ok=True)
    names = [*dict.fromkeys(name for names in PROJECTIONS.values() for name in names)]
    register_model_arch(
        MultiModelKeys("emotion_llama", language_model="language_model", aligner=names, vision_tower="vision_tower"),
        exist_ok=True,
    )
    register_model(
        ModelMeta(
            "emotion_llama",
            [],
            EmotionLlamaLoader,
            template="emotion_llama",
            architectures=["EmotionLlama"],
            model_arch="emotion_llama",
            is_multimodal=True,
        ),
        exist_ok=True,
    )
    template.register()
