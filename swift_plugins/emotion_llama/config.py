"""Emotion-LLaMA's configuration: EVA-CLIP-g, Llama, and what lies between."""

from __future__ import annotations

from transformers import Blip2VisionConfig, LlamaConfig, PreTrainedConfig

MERGED = 4  # neighbouring patches that become one token
STREAMS = {1: ("face", "videomae", "hubert"), 2: ("eva_video", "whisper")}  # prepared features, in the order of tokens
FUSIONS = ("conv-attention", "attention", "convolution", "none")
BLOCK = 64  # tokens of fusion, video and audio each, variant 2


class EmotionLlamaConfig(PreTrainedConfig):
    """Sizes of the parts; the defaults are the published ones.

    variant: 1 (arXiv 2406.11161: three vectors beside the picture) or 2 (2601.16449: fusion, video and audio tokens).
    stream_width: of each vector of variant 1. In variant 2 video is as wide as the vision tower, sound audio_width.
    fusion: one of `FUSIONS`; fusion_hidden, fusion_width, fusion_out: its layers.
    """

    model_type = "emotion_llama"
    sub_configs = {"vision_config": Blip2VisionConfig, "text_config": LlamaConfig}

    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    variant: int = 1
    stream_width: int = 1024
    audio_width: int = 1280
    fusion: str = "conv-attention"
    fusion_hidden: int = 512
    fusion_width: int = 128
    fusion_out: int = 256
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        for name, kind in self.sub_configs.items():
            value = getattr(self, name)
            setattr(self, name, kind(**value) if isinstance(value, dict) else kind() if value is None else value)
        if self.variant not in STREAMS:
            raise ValueError(f"variant {self.variant} is neither 1 nor 2")
        if self.fusion not in FUSIONS:
            raise ValueError(f"fusion {self.fusion!r} is none of {', '.join(FUSIONS)}")
        super().__post_init__(**kwargs)

    @property
    def image_tokens(self) -> int:
        """Tokens of a picture."""
        vision = self.vision_config
        return (vision.image_size // vision.patch_size) ** 2 // MERGED

    @property
    def slots(self) -> tuple[int, ...]:
        """Tokens at each place that the text keeps for media: the picture's and the vectors', or one place for all."""
        if self.variant == 1:
            return self.image_tokens, len(STREAMS[1]) + 1
        return (self.image_tokens + 2 * BLOCK + (BLOCK if self.fusion != "none" else 0),)

    def stream_shape(self, stream: str) -> tuple[int, ...]:
        """The shape of a prepared feature as the model takes it."""
        if self.variant == 1:
            return (self.stream_width,)
        return BLOCK, self.audio_width if stream == "whisper" else self.vision_config.hidden_size
