"""Features that are prepared once: of the frozen vision tower (tower), of Emotion-LLaMA's encoders (encoders)."""

from data_prep.features.tower import main, named_media

__all__ = ["main", "named_media"]
