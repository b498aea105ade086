"""MERR: read `MERR_fine_grained.json`, `MERR_coarse_grained.json`, label lists, transcripts, and the clips beside them.

    python -m data_prep.build_amt --merr DIR --merr-coarse DIR --split train --out OUT \
        --prompts configs/emotion-llama/prompts.yaml

Layout of DIR, all of it optional but the JSON file (merr_coarse: or a label list): the two JSON files, clip name →
record; `*_NCEV.txt` (`name frames emotion valence`); `transcription_en_all.csv` (name, sentence) or MER2024's
`transcription_all_new.csv` (name, sentence_en); clips `<name>.mp4`, `.avi` … in DIR or in DIR/video. MERR has a
training split only. What rows need beside a sample, its Action Units and its reason, stands in the same JSON file:
`records` gives it in the form of fer.jsonl and eri.jsonl. docs/merr.md says what becomes of which key.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from data_prep.fer.facs import FACS, Facs, describe, load_facs
from data_prep.readers.sample import Fault, Sample, SplitAbsent
from data_prep.readers.tables import identifier, read_table, transcript
from swift_plugins.files import HALF, InputError, is_text, validated

# Not taken from swift_plugins.tasks: what that loads (AMT_EXTENSIONS) may add to the readers, which must be there.
LABELS = ("happy", "sad", "neutral", "angry", "worried", "surprise", "fear", "contempt", "doubt")
FINE, COARSE = "MERR_fine_grained.json", "MERR_coarse_grained.json"
LISTS = "*_NCEV.txt"
TRANSCRIPTS = {"transcription_en_all.csv": "sentence", "transcription_all_new.csv": "sentence_en"}
CLIPS = "video"  # a folder of that name, else the clips lie beside the annotations
FINE_LABELS = dict(zip(LABELS, (475, 1091, 1352, 874, 310, 213, 86, 41, 45), strict=True))
SEED = 42  # of the phrases, as `data_prep.fer` draws them
TEXTS = ("audio_prior_list", "text", "caption", "smp_reason_caption")  # texts of a record


class MerrRecord(BaseModel):
    """The types of a record; keys may be absent, never null, and further ones are allowed."""

    model_config = ConfigDict(strict=True, extra="allow")

    peak_index: str | None = Field(None, pattern="^(0|[1-9][0-9]{0,8})$")  # of a frame, from 0
    peak_AU_list: list[str] | None = None
    AU_list: list[str] | None = None
    visual_prior_list: list[str] | None = None  # a phrase for each of AU_list
    audio_prior_list: str | None = None
    pseu_emotion: str
    caption: str | None = Field(None, pattern=r"\S")
    text: str | None = None
    smp_reason_caption: str | None = Field(None, pattern=r"\S")

    @model_validator(mode="before")
    @classmethod
    def _no_null(cls, content: dict[str, Any]) -> dict[str, Any]:
        if null := [key for key in cls.model_fields if key in content and content[key] is None]:
            raise ValueError(f"{null[0]} is null")
        return content

    @field_validator("pseu_emotion")
    @classmethod
    def _label(cls, label: str) -> str:
        if label not in LABELS:
            raise ValueError(f"{label!r:.60} is not one of {', '.join(LABELS)}")
        return label

    @model_validator(mode="after")
    def _phrases_of_aus(self) -> MerrRecord:
        aus, phrases = self.AU_list, self.visual_prior_list
        if (aus is None) != (phrases is None) or len(aus or ()) != len(phrases or ()):
            raise ValueError("AU_list and visual_prior_list are not of the same length")
        return self


@dataclass(frozen=True)
class Annotations:
    """What one JSON file holds. name → record, in file order; `faults` say what was read leniently or passed over."""

    path: Path
    records: dict[str, MerrRecord]
    faults: list[Fault]


@dataclass(frozen=True)
class MerrReader:
    """The reader of one of the two JSON files: has what a reader module has (`data_prep.readers`).

    own_text: the key whose text is the target of ERI.
    """

    name: str
    file: str
    own_text: str
    PUBLISHED: Mapping[str, Mapping[str, int]]

    TASKS = ("mer", "fer", "eri")

    def read(self, root: Path, split: str, faults: list[Fault]) -> Iterator[Sample]:
        """Yield the clips of the JSON file in its order; of merr_coarse, then those that only a label list names.

        A label list whose name holds `test` is of clips to be scored: they are not read, and a clip of the JSON file
        that it names is a fault (`in_test_list`), like one to which a list gives another label (`label_differs`).
        Raises `SplitAbsent` for a folder without the file and for dev and test, `InputError` naming file, clip and
        reason for whatever is no record of MERR.
        """
        root = Path(root)
        found = self.annotations(root, split)
        faults += found.faults
        folder = clip_folder(root)
        sentences = transcripts(root)
        labels, held_out = _label_lists(root, faults)
        for name, record in found.records.items():
            yield self._sample(name, record.pseu_emotion, record.text, sentences, folder, faults)
            if name in held_out:
                faults.append(Fault("in_test_list", self._id(name), f"{held_out[name]} holds it as well; kept"))
            if labels.get(name, record.pseu_emotion) != record.pseu_emotion:
                detail = f"a label list says {labels[name]}, {self.file} {record.pseu_emotion}; the latter is used"
                faults.append(Fault("label_differs", self._id(name), detail))
        if self.file == COARSE:
            for name, label in labels.items():
                if name not in held_out and name not in found.records:
                    yield self._sample(name, label, None, sentences, folder, faults)

    def records(self, root: Path, split: str) -> dict[str, dict[str, dict]]:
        """{"fer": {id: record}, "eri": {id: record}} of the JSON file, as fer.jsonl and eri.jsonl hold them.

        All that the JSON file says of a clip stands in them or in its sample: `data_prep.merr` makes the record of
        MERR from them again.
        """
        facs = load_facs(os.environ.get("AMT_FACS") or FACS)
        made: dict[str, dict[str, dict]] = {"fer": {}, "eri": {}}
        found = self.annotations(Path(root), split)
        for name, record in found.records.items():
            if unknown := [au for au in record.AU_list or () if au not in facs.aus]:
                raise InputError(f"AU_list: {unknown[0]!r:.40} is no Action Unit of the FACS table", found.path, name)
            clip = self._id(name)
            made["eri"][clip] = eri_record(clip, record, self.own_text)
            if record.AU_list is not None or record.peak_index is not None or record.peak_AU_list is not None:
                made["fer"][clip] = fer_record(clip, record, facs)
        return made

    def own_data(self, splits: Mapping[str, list[Sample]]) -> dict[str, str]:
        """Split → why it is no part of the published MERR: no clip has a name of MER2023."""
        names = (sample.id.rpartition("/")[2] for samples in splits.values() for sample in samples)
        return {} if any(name.startswith("sample") for name in names) else {"train": "no clip is named sample…"}

    def annotations(self, root: Path, split: str = "train") -> Annotations:
        """The JSON file; of merr_coarse an empty one where there are label lists alone. Raises as `read`."""
        if split != "train":
            raise SplitAbsent(f"MERR has no {split} split, it is for training", root)
        path = root / self.file
        if path.is_file():
            state = path.stat()
            return _read(path, (state.st_mtime_ns, state.st_size))
        if self.file == COARSE and any(root.glob(LISTS)):
            return Annotations(path, {}, [])
        raise SplitAbsent(f"is not a MERR folder: it holds no {self.file}", root)

    def _id(self, name: str) -> str:
        return f"{self.name}/train/{name}"

    def _sample(
        self, name: str, label: str, text: str | None, sentences: Mapping[str, str], folder: str, faults: list[Fault]
    ) -> Sample:
        said = sentences.get(name, "") if text is None else text
        return Sample(
            id=self._id(name),
            dataset=self.name,
            split="train",
            text=transcript(said, self._id(name), faults),
            video=f"{folder}{name}.mp4",
            emotion=label,
        )


def fer_record(clip: str, record: MerrRecord, facs: Facs) -> dict[str, Any]:
    """The record of fer.jsonl: AU_list in the phrases of the FACS table.

    Phrases that are the table's own are taken as they stand; of others each AU gets one of the table's, and MERR's own
    stay under `visual_prior_list`. Keys that the record of MERR lacks are absent here, too.
    """
    made: dict[str, Any] = {"id": clip, "emotion": record.pseu_emotion, "caption": None, "image": None}
    if record.AU_list is not None and record.visual_prior_list is not None:
        phrases = record.visual_prior_list
        if not all(phrase in facs.aus[au].phrases for au, phrase in zip(record.AU_list, phrases, strict=True)):
            made["visual_prior_list"] = phrases
            phrases = describe(record.AU_list, facs, f"{SEED}:{clip}")
        made |= {"aus": record.AU_list, "phrases": phrases, "caption": "; ".join(phrases) or None}
    if record.peak_index is not None:
        made |= {"index": int(record.peak_index), "frame": int(record.peak_index) + 1}
    if record.peak_AU_list is not None:
        made["peak_aus"] = record.peak_AU_list
    return made


def eri_record(clip: str, record: MerrRecord, own_text: str) -> dict[str, Any]:
    """The record of eri.jsonl: the text of `own_text` as the reason, the tone of the voice, the others by MERR's names.

    White space inside smp_reason_caption becomes single spaces: the owners' text holds line breaks and indentation.
    """
    texts = {key: text for key in TEXTS if (text := getattr(record, key)) is not None}
    if "smp_reason_caption" in texts:
        texts["smp_reason_caption"] = " ".join(texts["smp_reason_caption"].split())
    made: dict[str, Any] = {"id": clip, "reason": texts.pop(own_text, ""), "clues": None, "label": record.pseu_emotion}
    if "audio_prior_list" in texts:
        made["tone"] = texts.pop("audio_prior_list")
    return made | texts


def read_annotations(path: Path) -> Annotations:
    """A JSON file of MERR, clip name → record.

    Where it is no JSON as it stands, lines that begin with `//` are left out and raw line breaks inside texts are taken
    as they are, which `faults` say. Raises `InputError` naming file, clip and reason.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError((error.strerror or str(error)).lower(), path) from None
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 ({error.reason} at byte {error.start})", path) from None
    value, faults = _parse(text, path)
    if not isinstance(value, dict):
        raise InputError(f"holds a {type(value).__name__} where an object, clip name → record, is expected", path)
    records: dict[str, MerrRecord] = {}
    further: set[str] = set()
    for name, content in value.items():
        if identifier(name, "the name", path, name) != name:
            raise InputError("the name begins or ends with white space", path, name)
        if not isinstance(content, dict):
            raise InputError(f"is a {type(content).__name__} where a record (an object) is expected", path, name)
        if not is_text(json.dumps(content, ensure_ascii=False)):
            raise InputError(HALF, path, name)
        records[name] = validated(MerrRecord, content, path, name)
        further |= (records[name].model_extra or {}).keys()
    if not records:
        raise InputError("holds no record", path)
    for key in sorted(further):
        faults.append(Fault("unknown_key", path.name, f"records hold {key!r:.60}, which is not read"))
    return Annotations(path, records, faults)


@functools.lru_cache(maxsize=4)
def _read(path: Path, state: tuple[int, int]) -> Annotations:
    """Samples and records are read one after the other, of files of tens of MB."""
    return read_annotations(path)


class _Twice(ValueError):
    """A key that an object holds twice."""


def _parse(text: str, path: Path) -> tuple[Any, list[Fault]]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            raise _Twice(f"names {next(name for name in names if names.count(name) > 1)!r:.60} twice")
        return found

    lines = text.split("\n")
    without = "\n".join("" if line.lstrip().startswith("//") else line for line in lines)  # numbers of lines stay
    try:
        try:
            return json.loads(text, object_pairs_hook=unique), []
        except json.JSONDecodeError:
            value = json.loads(without, object_pairs_hook=unique, strict=False)
    except json.JSONDecodeError as error:
        raise InputError(f"is not JSON: {error.msg}", path, error.lineno) from None
    except _Twice as error:
        raise InputError(str(error), path) from None
    except ValueError:  # an integer of thousands of digits
        raise InputError("is not JSON (number too long)", path) from None
    except RecursionError:
        raise InputError("is not JSON (nested too deeply)", path) from None
    comments = sum(line.lstrip().startswith("//") for line in lines)
    detail = f"is not JSON as it stands; read without its {comments} lines of comments, raw line breaks taken as text"
    return value, [Fault("lenient_json", path.name, detail)]


# Label lists and transcripts


def read_label_list(path: Path) -> Iterator[tuple[int, str, int, str, float]]:
    """Yield (line, clip name, frames, emotion, valence) of a `*_NCEV.txt`; a valence of -10 means that there is none.

    Raises `InputError` for a line of other fields, a label outside the nine, and a clip that comes twice.
    """
    seen: dict[str, int] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 ({error.reason} at byte {error.start})", path) from None
    for line, text in enumerate(lines, 1):
        fields = text.split()
        if not fields:
            continue
        if len(fields) not in (3, 4) or not re.fullmatch("[0-9]{1,9}", fields[1]):
            raise InputError("is not `name frames emotion valence`", path, line)
        name, emotion = identifier(fields[0], "the name", path, line), fields[2]
        if emotion not in LABELS:
            raise InputError(f"{name}: {emotion!r:.60} is not one of {', '.join(LABELS)}", path, line)
        if name in seen:
            raise InputError(f"{name} comes twice (first in line {seen[name]})", path, line)
        if len(fields) == 4 and not re.fullmatch(r"-?[0-9]{1,4}(\.[0-9]{1,20})?", fields[3]):
            raise InputError(f"{name}: the valence {fields[3]!r:.40} is no number", path, line)
        seen[name] = line
        yield line, name, int(fields[1]), emotion, float(fields[3]) if len(fields) == 4 else -10.0


def _label_lists(root: Path, faults: list[Fault]) -> tuple[dict[str, str], dict[str, str]]:
    """(name → label of the lists for training, name → the list of clips to be scored that holds it)."""
    labels: dict[str, str] = {}
    held_out: dict[str, str] = {}
    for path in sorted(root.glob(LISTS)):
        for line, name, _, emotion, _ in read_label_list(path):
            if "test" in path.name:
                held_out[name] = path.name
            elif labels.setdefault(name, emotion) != emotion:
                detail = f"says {emotion} of {name}, another list {labels[name]}; the first is used"
                faults.append(Fault("label_differs", f"{path.name}:{line}", detail))
    return labels, held_out


def clip_folder(root: Path) -> str:
    """What the paths of clips begin with: `video/`, or "" where they lie beside the annotations."""
    return f"{CLIPS}/" if (root / CLIPS).is_dir() else ""


def transcripts(root: Path) -> dict[str, str]:
    """Clip name → sentence of the CSV files that are there; a name in both has the sentence of the first."""
    found: dict[str, str] = {}
    for file, column in TRANSCRIPTS.items():
        if (root / file).is_file():
            for _, row in read_table(root / file, ("name", column)):
                found.setdefault(row["name"].strip(), row[column])
    return found


READER = MerrReader("merr", FINE, "smp_reason_caption", {"train": {"clips": sum(FINE_LABELS.values()), **FINE_LABELS}})
COARSE_READER = MerrReader("merr_coarse", COARSE, "caption", {"train": {"clips": 28_618}})
