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

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from data_prep.prompts import Prompts
from data_prep.readers.sample import Fault, Sample
from swift_plugins.files import InputError, read_rows
from swift_plugins.scoring.results import media_of, query_of
from swift_plugins.tasks import TASKS

UNKNOWN = "unknown"  # what a prompt shows for an utterance whose MER answer could not be read


def read_emotions(path: Path, samples: Sequence[Sample], wording: Prompts, faults: list[Fault]) -> dict[str, str]:
    """Sample id → predicted emotion, from the `ecf.mer` rows of a result file.

    Result rows hold no id. They are joined by the name of their clip, which is unique; without clips by the text of the
    prompt. Utterances with the same words are told apart by their order when the whole file is in the split's order,
    and need not be when all of them got the same answer. Raises `InputError` when an answer cannot be told to one
    utterance, when one is missing or too many, and when the file holds no ecf.mer row.
    """
    rows = [(number, row) for number, row in read_rows(path) if row.get("channel") == "ecf.mer"]
    if not rows:
        raise InputError("holds no result of channel ecf.mer", path)
    clips = {PurePath(sample.video).name: sample for sample in samples if sample.video}
    by_clip = all(media_of(row) for _, row in rows)
    keys = [
        PurePath(sample.video or "").name if by_clip else query_of({"query": wording.query(sample, "mer")})
        for sample in samples
    ]
    if by_clip and len(clips) != len(samples):
        raise InputError("its rows have clips, and some utterances of the split have none", path)
    found = defaultdict(list)
    order = []
    known = set(keys)
    for number, row in rows:
        key = PurePath(media_of(row)[-1]).name if by_clip else query_of(row)
        if key not in known:
            shown = key if by_clip else f"the prompt {key[:60]!r}"
            raise InputError(f"{shown} is no utterance of this split: other data, or other --prompts?", path, number)
        order.append(key)
        found[key].append((number, TASKS["mer"].lenient(row.get("response"), "ecf")))
    wanted = Counter(keys)
    for key, sample in zip(keys, samples, strict=True):
        if len(found[key]) != wanted[key]:
            count = f"{len(found[key])} answers where {wanted[key]} are wanted"
            raise InputError(f"{sample.id}: {count}; is the file whole, and of one run?", path)
    in_order = order == keys
    emotions = {}
    for key, sample in zip(keys, samples, strict=True):
        answers = {emotion for _, emotion in found[key]}
        if len(answers) > 1 and not in_order:
            raise InputError(
                f"{wanted[key]} utterances have the words of {sample.id} and different answers, and the file is not in"
                " the order of the split: which answer is whose cannot be known",
                path,
                found[key][0][0],
            )
        emotion = found[key].pop(0)[1] if in_order else answers.pop()
        if emotion is None:
            faults.append(Fault("unparsed_emotion", sample.id, f"the MER answer cannot be read; shown as {UNKNOWN}"))
        emotions[sample.id] = emotion or UNKNOWN
    return emotions


def relabel(samples: Sequence[Sample], emotions: dict[str, str]) -> list[Sample]:
    """The samples with predicted emotions, their own and those of every line of their conversation."""

    def lines(sample: Sample) -> tuple:
        stem = sample.id.rpartition("utt")[0]
        return tuple(replace(line, emotion=emotions[f"{stem}utt{line.index}"]) for line in sample.conversation)

    return [replace(sample, emotion=emotions[sample.id], conversation=lines(sample)) for sample in samples]
