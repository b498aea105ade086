"""What configs/eri.yaml holds: the models' prompts, and the rules that their answers must keep."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from swift_plugins.files import CONFIGS, Config, read_config

CONFIG = CONFIGS / "eri.yaml"
MERGER = "reason"  # the last question of either form, about what the others answered
Media = Literal["pictures", "sound"]
Share = Annotated[float, Field(ge=0, le=1)]

_LABELS = frozenset(("label", "labels"))
_TOLD = _LABELS | {"transcript", "expression", "aus"}  # of every clip
_PAIR = ("clues", "tone", MERGER)
# Fields, keys of a record and columns of the review's sheet, which no agent can be called like.
_TAKEN = _TOLD | {"clues", "tone", "heard", "character", "scene", "id", "decision", "rejected", "media"}


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


class Agent(Chat):
    """The prompt of one of `agents`. takes: what its model is shown of a clip; the merger is shown nothing.
    seconds: of sound, at most, from the beginning. told: how {<name>} of the merger's prompt tells its accepted answer,
    {<name>} again; where a clip has none, {<name>} is nothing."""

    takes: Media | None = None
    seconds: PositiveFloat = 30.0
    told: str = ""


@dataclass(frozen=True, slots=True)
class Pass:
    """A question about each clip. name: in records, reports and `about` of the journal; server: what options, keys and
    the journal call its model; takes: what the model is shown, at most `seconds` of sound; field: what the merger's
    prompt calls the answer, as `told` tells it ("": an answer of two lines, the fields {character} and {scene})."""

    name: str
    server: str
    chat: Chat
    takes: Media | None = None
    seconds: float = 0.0
    field: str = ""
    told: str = ""

    @property
    def knows_label(self) -> bool:
        """Whether the model is told the label: only then can its answer contradict it."""
        return any(_used(text) & _LABELS for text in (self.chat.system, self.chat.user))


def _used(text: str) -> set[str]:
    """The fields of a text; ValueError for a brace without its other half."""
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


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
    """The rules, see `data_prep.eri.quality`; `words` is [fewest, most] per pass or agent."""

    most_characters: PositiveInt
    words: dict[str, Annotated[list[int], Field(min_length=2, max_length=2)]]
    refusal: list[str]
    language: Language
    prompt_copy: PromptCopy
    near_duplicate: NearDuplicate
    emotions: dict[str, list[str]]
    sentiments: dict[str, list[str]] = {}

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
    agents: dict[str, Agent] = {}
    prices: dict[str, Price]
    quality: Quality

    def passes(self, agents: bool) -> tuple[Pass, ...]:
        """The questions about a clip, the merger's last: those of `agents`, or clues, tone and reason."""
        if agents:
            listed = sorted(self.agents.items(), key=lambda item: item[0] == MERGER)
            return tuple(
                Pass(name, name, agent, agent.takes, agent.seconds, name, agent.told) for name, agent in listed
            )
        clues, reason = Pass("clues", "clue", self.clues, "pictures"), Pass(MERGER, MERGER, self.reason)
        if self.tone is None:
            return clues, reason
        tone = self.tone
        return clues, Pass("tone", "tone", tone, "sound", tone.seconds, "heard", tone.heard), reason

    @field_validator("agents")
    @classmethod
    def _agents_fit(cls, agents: dict[str, Agent]) -> dict[str, Agent]:
        if not agents:
            return agents
        for name, agent in agents.items():
            if not re.fullmatch(r"[a-z][a-z0-9_]{0,30}", name) or name in _TAKEN:
                raise ValueError(f"{name!r} cannot be the name of an agent: lower-case letters, and no field's name")
            if name == MERGER and (agent.takes or agent.told):
                raise ValueError(f"{name} merges what the others answer: it has neither takes nor told")
            if name != MERGER and not (agent.takes and agent.told):
                raise ValueError(f"{name}: missing key {'told' if agent.takes else 'takes'}")
        if MERGER not in agents:
            raise ValueError(f"missing key {MERGER}, the agent that merges what the others answer")
        if all(agent.takes != "pictures" for agent in agents.values()):
            raise ValueError("none takes pictures")
        return agents

    @model_validator(mode="after")
    def _texts_fit(self) -> EriConfig:
        pair, agents = self.passes(agents=False), self.passes(agents=True)
        for name in ("clues", MERGER, *(kind.name for kind in (*pair, *agents))):
            if name not in self.quality.words:
                raise ValueError(f"quality.words: missing key {name}")
        for prefix, passes in (("", pair), ("agents.", agents)):
            known = {kind.field for kind in passes if kind.takes and kind.field}
            known |= set() if prefix else {"character", "scene", "heard"}
            for kind in passes:
                fields = _TOLD | (known if kind.takes is None else set())
                for part in ("system", "user"):
                    _check_fields(f"{prefix}{kind.name}.{part}", getattr(kind.chat, part), fields)
                told = "told" if prefix else "heard"
                _check_fields(f"{prefix}{kind.name}.{told}", kind.told, frozenset({kind.name}))
        if agents and not agents[-1].knows_label:
            raise ValueError(f"agents.{MERGER}: its texts name neither {{label}} nor {{labels}}")
        if unknown := set(self.quality.words) - {*_PAIR, *self.agents}:
            raise ValueError(f"quality.words.{min(unknown)}: unknown key")
        return self


def _check_fields(where: str, text: str, fields: frozenset[str]) -> None:
    try:
        unknown = _used(text) - fields
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if unknown:
        raise ValueError(f"{where}: no field {{{min(unknown)}}}; there are {sorted(fields)}")


def load(path: str | Path = CONFIG) -> EriConfig:
    """configs/eri.yaml or a replacement; `InputError` names the key or field that is missing, unknown or wrong."""
    return read_config(path, EriConfig)
