r"""Clips of any dataset as records of MERR, and MERR as fer.jsonl and eri.jsonl.

    python -m data_prep.merr --export --dataset mosei --root DIR --labels anger=angry sadness=sad disgust= --out OUT
    python -m data_prep.merr --export --dataset merr --root MERR --out OUT
    python -m data_prep.merr --import --root MERR --out OUT

--export writes MERR_fine_grained.json, MERR_coarse_grained.json and transcription_en_all.csv from the samples of a
reader, fer.jsonl (`data_prep.fer`) and eri.jsonl (`data_prep.eri`, with --tone-url for the tone of the voice); of MERR
itself it writes the file that was read. With --clips, OUT/video holds links to the clips, and OUT a label list of them:
such a folder is what build_amt --merr reads, and the layout that Emotion-LLaMA's own code expects. --import writes what
the reader of MERR makes of its two files. Both ways together change nothing, but white space inside smp_reason_caption;
docs/merr.md says what other clips lose.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from data_prep.eri.review import read_eri
from data_prep.readers import READERS, SPLITS, merr, own, published
from data_prep.readers.media import ClipFinder
from data_prep.readers.sample import Fault, Sample, SplitAbsent
from swift_plugins.files import AtomicFiles, InputError, read_rows, run_cli, validated, write_rows
from swift_plugins.frames import count_frames
from swift_plugins.options import option, parse

# As MERR's coarse captions were made.
CAPTION = (
    "This person in the video is {objective}. The person's expression and actions include {expression}, and the "
    "person's tone is {tone}. Saying: {text}"
)
NO_VALENCE = -10
UNKNOWN = "not described"  # stands in a caption for what no model described


@dataclass(frozen=True)
class Options:
    """The command line."""

    out: Path = option(metavar="DIR", help="folder to write")
    export: bool = option(False, help="write records of MERR")
    import_: bool = option(False, flag="--import", help="write fer.jsonl and eri.jsonl of MERR")
    dataset: str | None = option(None, metavar="NAME", help="whose clips to export: a dataset, or your own YAML file")
    root: Path | None = option(None, metavar="DIR", help="folder of the dataset; of MERR with --import")
    split: str = option("train", choices=SPLITS, help="train (default), dev or test")
    labels: tuple[str, ...] = option(
        (), metavar="OWN=MERR", help="what a label is called in MERR, joy=happy; disgust= leaves such clips out"
    )
    clips: bool = option(False, help="link the clips, and list them with their labels (relative_<split>_NCEV.txt)")
    fer: Path | None = option(None, metavar="FILE", help="default: DIR/fer.jsonl")
    eri: Path | None = option(None, metavar="FILE", help="default: DIR/eri.jsonl")


class FerFacts(BaseModel):
    """The types of what is read from a fer.jsonl."""

    model_config = ConfigDict(strict=True, extra="allow")

    id: str
    aus: list[str] = Field(None)  # like the others absent where MERR said nothing, never null
    phrases: list[str] = Field(None)
    visual_prior_list: list[str] = Field(None)
    index: int = Field(None, ge=0)
    peak_aus: list[str] = Field(None)


def record(label: str, fer: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """One record of MERR, its keys in the order of MERR's schema.

    fer: the clip's record of fer.jsonl. texts: those of `merr.TEXTS` that the record is to hold. What neither says is
    absent.
    """
    made: dict[str, Any] = {}
    if "index" in fer:
        made["peak_index"] = str(fer["index"])
    if "peak_aus" in fer:
        made["peak_AU_list"] = list(fer["peak_aus"])
    if "aus" in fer:
        made["AU_list"] = list(fer["aus"])
        made["visual_prior_list"] = list(fer.get("visual_prior_list", fer["phrases"]))
    tone, *others = merr.TEXTS
    made |= {tone: texts[tone]} if tone in texts else {}
    made["pseu_emotion"] = label
    return made | {key: texts[key] for key in others if key in texts}


def kept_texts(eri: Mapping[str, Any], own_text: str) -> dict[str, str]:
    """The texts of a clip of MERR, as `merr.eri_record` keeps them."""
    texts = {key: eri[key] for key in merr.TEXTS if key in eri}
    if "tone" in eri:
        texts["audio_prior_list"] = tone_of(eri)
    return texts | ({own_text: eri["reason"]} if eri.get("reason") else {})


def tone_of(eri: Mapping[str, Any]) -> str:
    """The tone of the voice, or what an agent heard, as one text; "" where nobody described it."""
    tone = eri.get("tone") or (eri.get("clues") or {}).get("audio", "")
    return tone if isinstance(tone, str) else " ".join(tone)


def coarse_caption(sample: Sample, fer: Mapping[str, Any], eri: Mapping[str, Any]) -> str:
    """MERR's coarse caption: what is seen of the person and around, the phrases of the face, the tone, the words."""
    clues = eri.get("clues") or {}
    seen = ". ".join(words for part in ("image", "character", "scene") if (words := clues.get(part, "").strip(". ")))
    return CAPTION.format_map(
        {
            "objective": seen or UNKNOWN,
            "expression": ", ".join(fer["phrases"]) or UNKNOWN,
            "tone": tone_of(eri).rstrip(". ") or UNKNOWN,
            "text": sample.text,
        }
    )


class Export:
    """The records of one split: `add` samples, then `write`."""

    def __init__(self, labels: Mapping[str, str], fer: Mapping[str, dict], eri: Mapping[str, dict]):
        self.labels, self.fer, self.eri = labels, fer, eri
        self.files: dict[str, dict[str, dict]] = {}  # file → clip name → record
        self.samples: dict[str, tuple[Sample, str]] = {}  # clip name → sample and label, but for clips of MERR
        self.left_out: Counter = Counter()

    def add(self, sample: Sample) -> None:
        """Make the sample's records; `InputError` for a label outside MERR's nine and for two clips of one name."""
        fer, eri = self.fer.get(sample.id), self.eri.get(sample.id, {})
        label = self._label(sample)
        if label is None:
            return
        name = sample.id.split("/", 2)[2].replace("/", "_")
        reader = READERS[sample.dataset]
        if isinstance(reader, merr.MerrReader):
            self._put(reader.file, name, sample, record(label, fer or {}, kept_texts(eri, reader.own_text)))
            return
        if fer is None:
            self.left_out["no record in fer.jsonl"] += 1
            return
        if missing := [key for key in ("aus", "phrases", "index", "peak_aus") if key not in fer]:
            made = "it was made by an earlier version: run data_prep.fer anew"
            raise InputError(f"the fer.jsonl record of {sample.id} has no {missing[0]}; {made}")
        self.samples[name] = sample, label
        texts = {"audio_prior_list": tone_of(eri), "caption": coarse_caption(sample, fer, eri)}
        self._put(merr.COARSE, name, sample, record(label, fer, texts))
        if not eri.get("reason"):
            self.left_out["no reason in eri.jsonl (in the coarse file only)"] += 1
            return
        texts = {"audio_prior_list": tone_of(eri), "text": sample.text, "smp_reason_caption": eri["reason"]}
        self._put(merr.FINE, name, sample, record(label, fer, texts))

    def _label(self, sample: Sample) -> str | None:
        if sample.emotion is None:
            self.left_out["no emotion label"] += 1
            return None
        label = self.labels.get(sample.emotion, sample.emotion)
        if not label:
            self.left_out[f"the label {sample.emotion}"] += 1
            return None
        if label not in merr.LABELS:
            raise InputError(
                f"{sample.id}: the label {label!r} is not one of MERR's {', '.join(merr.LABELS)}; --labels "
                f"{label}=LABEL says which it is, {label}= leaves its clips out"
            )
        return label

    def _put(self, file: str, name: str, sample: Sample, made: dict) -> None:
        if name in self.files.setdefault(file, {}):
            raise InputError(f"{sample.id}: another clip is called {name}, too")
        self.files[file][name] = made

    def write(self, out: Path, label_list: str, frames: Mapping[str, int]) -> None:
        """All files, or none. frames: clip name → frames, of the clips that are to stand in the label list."""
        with AtomicFiles() as files:
            for file, records in self.files.items():
                json.dump(records, files.open(out / file), ensure_ascii=False, indent=2)
                files.open(out / file).write("\n")
            if self.samples:
                table = csv.writer(files.open(out / next(iter(merr.TRANSCRIPTS))), lineterminator="\n")
                table.writerow(("name", "sentence"))
                table.writerows((name, sample.text) for name, (sample, _) in self.samples.items())
            for name, count in frames.items():
                files.open(out / label_list).write(f"{name} {count} {self.samples[name][1]} {NO_VALENCE}\n")
            files.commit()

    def link(self, out: Path, root: Path) -> dict[str, int]:
        """Link the clips that can be read under `out`, and return how many frames each has.

        Raises `InputError` where a file that is no link has the place of one.
        """
        finder, frames = ClipFinder(root), {}
        links: dict[Path, Path] = {}
        for name, (sample, _) in self.samples.items():
            clip = root / finder.find(sample.video) if sample.video else None
            with contextlib.suppress(InputError):
                if clip and (count := count_frames(clip)):
                    frames[name] = count
                    links[out / merr.CLIPS / f"{name}{clip.suffix.lower()}"] = clip.resolve()
        if unread := len(self.samples) - len(frames):
            self.left_out["no clip that can be read (neither linked nor listed)"] = unread
        if taken := [place for place in links if place.exists() and not place.is_symlink()]:
            raise InputError("is a file where a link to a clip is to be", taken[0])
        for place, clip in links.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            place.symlink_to(os.path.relpath(clip, place.parent.resolve()))
        return frames


def export(options: Options) -> int:
    """Read samples and records of a dataset, write them as MERR, and print what came of them."""
    if not options.dataset:
        raise InputError("--export needs --dataset NAME and its --root DIR")
    dataset, root = _dataset(options.dataset, options.root)
    if not root.is_dir():
        raise InputError("no such folder", root)
    files = {kind: given or root / f"{kind}.jsonl" for kind, given in (("fer", options.fer), ("eri", options.eri))}
    made = READERS[dataset].records(root, options.split) if hasattr(READERS[dataset], "records") else {}
    fer, eri = made.get("fer", {}), made.get("eri", {})
    if options.fer or files["fer"].is_file():
        fer |= _read_fer(files["fer"])
    if options.eri or files["eri"].is_file():
        eri |= {found["id"]: found for found in read_eri([files["eri"]])}
    faults: list[Fault] = []
    export = Export(_labels(options.labels), fer, eri)
    for sample in READERS[dataset].read(root, options.split, faults):
        export.add(sample)
    if not export.files:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in export.left_out.items())
        raise InputError(f"no record of MERR comes of {dataset} {options.split}: {reasons or 'it has no clips'}")
    if options.clips and not export.samples:
        raise InputError(f"--clips: the clips of {dataset} have MERR's names already")
    frames = export.link(options.out, root) if options.clips else {}
    export.write(options.out, merr.LISTS.replace("*", f"relative_{options.split}"), frames)
    for file, records in export.files.items():
        print(f"{len(records):,} records: {options.out / file}")
    for reason, count in export.left_out.items():
        print(f"  left out: {count:,}, {reason}")
    _tell(faults)
    return 0


def import_(options: Options) -> int:
    """Write fer.jsonl and eri.jsonl of the two files of MERR, as far as they are there."""
    root = options.root
    found: dict[str, list[dict]] = {"fer": [], "eri": []}
    if root is None:
        raise InputError("--import needs --root DIR, the folder of MERR")
    if not root.is_dir():
        raise InputError("no such folder", root)
    faults: list[Fault] = []
    for reader in (merr.READER, merr.COARSE_READER):
        try:
            faults += reader.annotations(root).faults
        except SplitAbsent:
            continue
        for kind, records in reader.records(root, "train").items():
            found[kind] += records.values()
    if not found["eri"]:
        raise InputError(f"is not a MERR folder: it holds no {merr.FINE} and no {merr.COARSE}", root)
    for kind, lines in found.items():
        print(f"{write_rows(options.out / f'{kind}.jsonl', lines):,} records: {options.out / f'{kind}.jsonl'}")
    _tell(faults)
    return 0


def _dataset(name: str, root: Path | None) -> tuple[str, Path]:
    if name in published():
        if root is None:
            raise InputError(f"--root DIR says where {name} is")
        return name, root
    if name not in READERS and not name.endswith((".yaml", ".yml")):
        raise InputError(f"--dataset {name}: no such dataset ({', '.join(READERS)}, or the YAML file of your own)")
    return next(iter(own([name], root).items()))


def _labels(given: tuple[str, ...]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for one in given:
        name, equals, label = one.partition("=")
        if not name or not equals or (label and label not in merr.LABELS):
            raise InputError(f"--labels {one}: expected OWN=MERR, MERR one of {', '.join(merr.LABELS)} or nothing")
        labels[name.lower()] = label
    return labels


def _read_fer(path: Path) -> dict[str, dict]:
    found: dict[str, dict] = {}
    for number, content in read_rows(path):
        facts = validated(FerFacts, content, path, number)
        if facts.aus is not None and len(facts.phrases or ()) != len(facts.aus):
            raise InputError("aus and phrases are not of the same length", path, number)
        if facts.id in found:
            raise InputError(f"duplicate id {facts.id}", path, number)
        found[facts.id] = content
    return found


def _tell(faults: list[Fault]) -> None:
    """What was read leniently in a line each, and how often anything else was found, on stderr."""
    for fault in faults:
        if fault.kind == "lenient_json":
            print(f"{fault.where}: {fault.detail}", file=sys.stderr)
    counts = Counter(fault.kind for fault in faults if fault.kind != "lenient_json")
    if counts:
        print("faults: " + ", ".join(f"{kind} {count:,}" for kind, count in counts.items()), file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    options = parse(Options, __doc__, "python -m data_prep.merr", argv)
    if options.export == options.import_:
        raise InputError("give --export or --import")
    return export(options) if options.export else import_(options)


if __name__ == "__main__":
    run_cli(main)
