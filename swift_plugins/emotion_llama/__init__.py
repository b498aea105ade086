"""Emotion-LLaMA (arXiv 2406.11161) and Emotion-LLaMAv2 (2601.16449) of transformers' own parts, without remote code.

python -m swift_plugins.emotion_llama.convert …      # the published files → a folder that ms-swift loads, and back
"""

from swift_plugins.emotion_llama.config import STREAMS, EmotionLlamaConfig
from swift_plugins.emotion_llama.model import EmotionLlama

__all__ = ["STREAMS", "EmotionLlama", "EmotionLlamaConfig"]
