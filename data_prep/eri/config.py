"""What configs/eri.yaml holds: the models' prompts, and the rules that their answers must keep."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from swift_plugins.files import CONFIGS, Config, InputError, read_config

CONFIG = CONFIGS / "eri.yaml"
Pass = Literal["clues", "tone", "reason"]
PASSES: tuple[Pass, ...] = ("clues", "tone", "reason")  # tone: only where a run names a model for it
Share = Annotated[float, Field(ge=0, le=1)]

_TOLD = frozenset(("transcript", "label", "expression"))  # of every clip
_FIELDS = {"clues": _TOLD, "tone": _TOLD, "reason": _TOLD | {"character", "scene", "heard"}}


class Pictures(Config):
    """What the clue model sees of a clip: at most `frames` pictures, `longest_side` in pixels."""

    frames: PositiveInt
    longest_side: PositiveInt
    jpeg_quality: Annotated[int, Field(ge=1, le=100)]


class Chat(Config):
    """The prompt of one model; `params` go to its server as they are."""

    system: str
    user: str
    params: dict[str, Any]


class Tone(Chat):
    """The prompt of the model that hears a clip: at most its first `seconds`. heard: how {heard} of the reason's prompt
    tells the accepted answer, {tone}; where a clip has none, {heard} is nothing."""

    seconds: PositiveFloat
    heard: str


class Language(Config):
    """When a text is not English: letters of other scripts, or few of the words that English cannot do without."""

    most_foreign_letters: Share
    least_function_words: Share
    function_words: list[str]


class PromptCopy(Config):
    """How much of an answer may stand in the prompt, as a share of its runs of `words` words."""

    words: PositiveInt
    most_share: Share


class NearDuplicate(Config):
    """How similar two reasons may be: Jaccard over runs of `words` words."""

    words: PositiveInt
    most_similar: Share


class Quality(Config):
    """The rules, see `data_prep.eri.quality`; `words` is [fewest, most] per pass."""

    most_characters: PositiveInt
    words: dict[Pass, Annotated[list[int], Field(min_length=2, max_length=2)]]
    refusal: list[str]
    language: Language
    prompt_copy: PromptCopy
    near_duplicate: NearDuplicate
    emotions: dict[str, list[str]]

    @field_validator("words")
    @classmethod
    def _both_passes(cls, words: dict) -> dict:
        if missing := [kind for kind in PASSES if kind not in words and kind != "tone"]:
            raise ValueError(f"missing key {missing[0]}")
        return words

    @field_validator("refusal")
    @classmethod
    def _patterns(cls, refusal: list[str]) -> list[str]:
        for pattern in refusal:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return refusal


class Price(Config):
    """USD per million tokens."""

    input: float
    output: float


class EriConfig(Config):
    """The whole file; `timeout` in seconds for one request, `seed` of the first attempt."""

    seed: int
    attempts: Annotated[int, Field(ge=1, le=100)]  # a question of the same words is not asked for ever
    timeout: PositiveFloat
    pictures: Pictures
    no_expression: str
    clues: Chat
    tone: Tone | None = None
    reason: Chat
    prices: dict[str, Price]
    quality: Quality

    def chat(self, kind: Pass) -> Chat:
        """The prompt of a pass; `InputError` where the file has none for the tone."""
        chat = {"clues": self.clues, "tone": self.tone, "reason": self.reason}[kind]
        if chat is None:
            raise InputError("has no prompt for the tone (tone, quality.words.tone)")
        return chat

    @model_validator(mode="after")
    def _known_fields(self) -> EriConfig:
        if self.tone and "tone" not in self.quality.words:
            raise ValueError("quality.words: missing key tone")
        texts = {
            (f"{kind}.{part}", _FIELDS[kind]): getattr(chat, part)
            for kind in PASSES
            if (chat := getattr(self, kind))
            for part in ("system", "user")
        }
        if self.tone:
            texts["tone.heard", frozenset({"tone"})] = self.tone.heard
        for (where, fields), text in texts.items():
            try:
                used = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
            if unknown := used - fields:
                raise ValueError(f"{where}: no field {{{min(unknown)}}}; there are {sorted(fields)}")
        return self


def load(path: str | Path = CONFIG) -> EriConfig:
    """configs/eri.yaml or a replacement; `InputError` names the key or field that is missing, unknown or wrong."""
    return read_config(path, EriConfig)
