"""Sample: the facts of one clip, as a reader of a raw dataset yields them. No prompts, no targets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from swift_plugins.files import InputError


class SplitAbsent(InputError):
    """What a reader raises where the folder holds no annotations of a split; the doctor goes on with the others."""


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

    id: stable and unique, `<dataset>/<split>/<clip>`: `meld/train/dia0_utt0`, `ecf/train/dia1utt3`; with the video
        before the clip where clips are cut from videos that splits may not share: `mosei/test/<video_id>/<clip_id>`.
    text: the transcript, decoded and with media tags neutralised, otherwise as published.
    video: path of the clip relative to the dataset's folder, or None where there is none (see `readers.media`).
    emotion: the dataset's own label in lower case, or None where the dataset has none for this clip.
    sentiment: `positive`, `negative` or `neutral` (MOSEI: the sign of `score`).
    score: MOSEI's sentiment in [-3, 3].
    conversation, index: of a dialogue, its lines and the index of this one.
    causes: the indices of its cause utterances in annotation order; None where the dataset annotates no causes.
    emotions: the several labels of a clip, in lower case. open_emotions: words of no closed set. intent: its label, in
        lower case. descriptions: what others say of the clip, "audio" of what is heard, "image" of what is seen.
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
    emotions: tuple[str, ...] | None = None
    open_emotions: tuple[str, ...] | None = None
    intent: str | None = None
    descriptions: Mapping[str, str] | None = None

    @property
    def dialogue(self) -> str | None:
        """The id of its conversation: `ecf/train/dia1` of `ecf/train/dia1utt3`; None outside a dialogue."""
        return conversation_id(self.id) if self.conversation else None


def conversation_id(sample_id: str) -> str:
    """`ecf/train/dia1utt3` → `ecf/train/dia1`, `meld/dev/dia0_utt4` → `meld/dev/dia0`."""
    return re.sub(r"_?utt[0-9]+$", "", sample_id)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something a reader or a later step found in the data and did not pass over in silence.

    kind: a short key that is counted in reports (`known_bad_clip`, `emotion_tie`, `missing_clip`, …).
    where: `<file>:<row>` or a sample id. detail: one plain sentence, with what was done about it.
    """

    kind: str
    where: str
    detail: str
