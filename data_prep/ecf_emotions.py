"""Emotions of an ECF split as the model predicts them, in place of the gold ones: the honest ECPE mode.

    python -m data_prep.build_amt --ecf DIR --split test --ecf-mer --out AMT     # every utterance as a MER row
    swift infer … --val_dataset amt:ecf.mer.test --result_path mer.jsonl         # the model's own MER pass
    python -m data_prep.build_amt --ecf DIR --split test --ecf-emotions mer.jsonl --out HONEST
    AMT_DATA=HONEST swift infer … --val_dataset amt:ecf.ecpe.test --result_path ecpe.jsonl
    python compute_result.py ecpe.jsonl                                          # ecf.ecpe.predicted, semeval

EmoVerse's ECPE prompt holds the gold emotion of every line, so its figures do not compare with SemEval's, whose systems
had to find the emotions themselves. Here a prompt shows predicted emotions. An utterance predicted non-neutral is a
target, whatever its gold: what is answered for a neutral one is a false positive. An utterance predicted neutral (or
not readable) that has causes in the gold is missed: its row has the channel `ecf.ecpe.missed`, in which the scorer
counts the gold and no prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data_prep.readers.sample import Fault, Sample, Utterance
from swift_plugins.files import InputError, read_rows
from swift_plugins.tasks import TASKS

UNKNOWN = "unknown"  # what a prompt shows for an utterance whose MER answer could not be read


def read_emotions(path: Path, samples: Sequence[Sample], faults: list[Fault]) -> dict[str, str]:
    """Sample id → predicted emotion, from the `ecf.mer` rows of a result file, by the ids that they carry.

    Raises `InputError` for a row without an id or with one that no utterance of the split has, for a repeated or a
    missing answer, and when the file holds no ecf.mer row.
    """
    known = {sample.id for sample in samples}
    emotions: dict[str, str] = {}
    for number, row in read_rows(path):
        if row.get("channel") != "ecf.mer":
            continue
        clip = row.get("id")
        if not isinstance(clip, str):
            raise InputError("has no id: infer on the rows that build_amt --ecf-mer wrote (amt:ecf.mer…)", path, number)
        if clip not in known:
            raise InputError(f"{clip} is no utterance of this split", path, number)
        if clip in emotions:
            raise InputError(f"a second answer for {clip}: is the file of one run?", path, number)
        emotion = TASKS["mer"].lenient(row.get("response"), "ecf")
        if emotion is None:
            faults.append(Fault("unparsed_emotion", clip, f"the MER answer cannot be read; shown as {UNKNOWN}"))
        emotions[clip] = emotion or UNKNOWN
    if not emotions:
        raise InputError("holds no result of channel ecf.mer", path)
    if missing := [sample.id for sample in samples if sample.id not in emotions]:
        raise InputError(f"lacks {len(missing):,} of {len(samples):,} utterances, {missing[0]} first", path)
    return emotions


def relabel(samples: Sequence[Sample], path: Path, faults: list[Fault]) -> list[Sample]:
    """The samples with the emotions that the result file `path` predicts, their own and those of their lines."""
    emotions = read_emotions(path, samples, faults)

    def lines(sample: Sample) -> tuple[Utterance, ...]:
        return tuple(
            replace(line, emotion=emotions[f"{sample.dialogue}utt{line.index}"]) for line in sample.conversation
        )

    return [
        replace(sample, emotion=emotions[sample.id], gold_emotion=sample.emotion, conversation=lines(sample))
        for sample in samples
    ]
