"""Sample: the facts of one clip, as a reader of a raw dataset yields them. No prompts, no targets."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Utterance:
    """One line of a conversation; `index` is the dataset's own utterance id (ECF counts from 1, MELD from 0)."""

    index: int
    speaker: str
    text: str
    emotion: str


@dataclass(frozen=True, slots=True)
class Sample:
    """The facts of one clip.

    id: stable and unique, `<dataset>/<split>/<clip>`: `meld/train/dia0_utt0`, `ecf/train/dia1utt3`,
        `mosei/test/<video_id>/<clip_id>`.
    text: the transcript, decoded and with media tags neutralised, otherwise as published.
    video: path of the clip relative to the dataset's folder, or None where there is none (see `data_prep.media`).
    emotion: the dataset's own label in lower case, or None where the dataset has none for this clip.
    sentiment: `positive`, `negative` or `neutral` (MOSEI: the sign of `score`).
    score: MOSEI's sentiment in [-3, 3].
    conversation, index: of a dialogue, its lines and the index of this one.
    causes: the indices of its cause utterances in annotation order; None where the dataset annotates no causes.
    gold_emotion: where `emotion` and the conversation show predicted emotions, the annotated one.
    """

    id: str
    dataset: str
    split: str
    text: str
    speaker: str = ""
    video: str | None = None
    emotion: str | None = None
    sentiment: str | None = None
    score: float | None = None
    conversation: tuple[Utterance, ...] = ()
    index: int | None = None
    causes: tuple[int, ...] | None = None
    gold_emotion: str | None = None

    @property
    def dialogue(self) -> str | None:
        """The id of its conversation: `ecf/train/dia1` of `ecf/train/dia1utt3`; None outside a dialogue."""
        return re.sub(r"_?utt[0-9]+$", "", self.id) if self.conversation else None


@dataclass(frozen=True, slots=True)
class Fault:
    """Something a reader or a later step found in the data and did not pass over in silence.

    kind: a short key that is counted in reports (`known_bad_clip`, `emotion_tie`, `missing_clip`, …).
    where: `<file>:<row>` or a sample id. detail: one plain sentence, with what was done about it.
    """

    kind: str
    where: str
    detail: str
