"""What a run has done → fer.jsonl, fer_report.json, and the pictures for a review by eye."""

from __future__ import annotations

import collections
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from data_prep.fer.au_table import read_faces
from data_prep.fer.clips import FerClip
from data_prep.fer.peaks import find_peak
from data_prep.fer.record import FerRun
from data_prep.readers.sample import Fault
from swift_plugins.files import read_rows, write_json, write_rows


def publish(
    run: FerRun, dataset: str, clips: dict[str, list[FerClip]], done: dict[str, dict], faults: list[Fault]
) -> dict:
    """Write fer.jsonl and fer_report.json from what is done, in the order of the dataset; returns the report.

    Neither holds a time, a path or a number of processes: both are the same bytes however the run went.
    """
    records, failed, counts, emotions, unknown = [], [], {}, collections.Counter(), collections.Counter()
    for split, part in clips.items():
        without, broken = collections.Counter(), collections.Counter()
        kept = 0
        for clip in part:
            entry = done.get(clip.id, {})
            if fault := entry.get("fault"):
                failed.append(fault)
                broken[fault["kind"]] += 1
            elif record := entry.get("record"):
                kept += 1
                unknown.update(record.pop("unknown", ()))
                if why := record.pop("why", None):
                    without[why] += 1
                    failed.append({"kind": why, "id": clip.id, "detail": "peak image kept, no caption"})
                else:
                    emotions[record["emotion"]] += 1
                records.append(record)
        counts[split] = {
            "clips": len(part),
            "records": kept,
            "captions": kept - without.total(),
            "records_without_caption": dict(sorted(without.items())),
            "clips_without_record": dict(sorted(broken.items())),
        }
    settings = run.settings
    report = {
        "dataset": dataset,
        "source": "csv" if run.program is None else "openface",
        "settings": {key: value for key, value in asdict(settings).items() if key != "facs"},
        "presence": {"column": settings.facs.presence.column, "threshold": settings.facs.presence.threshold},
        **({"records_without_data_on": dict(sorted(unknown.items()))} if unknown else {}),
        "splits": counts,
        "captions_per_emotion": dict(sorted(emotions.items(), key=str)),
        "reader_faults": dict(sorted(collections.Counter(fault.kind for fault in faults).items())),
        "clips": failed,
    }
    write_json(run.out / ".fer" / "fer_report.json", report)
    write_rows(run.out / ".fer" / "fer.jsonl", records)
    for name in ("fer_report.json", "fer.jsonl"):
        os.replace(run.out / ".fer" / name, run.out / name)
    return report


def summarise(report: dict, path: Path) -> None:
    """Print how many records there are at `path`, and why clips have none."""
    total, causes = collections.Counter(), collections.Counter()
    for counts in report["splits"].values():
        total.update({key: counts[key] for key in ("clips", "records", "captions")})
        causes.update(counts["clips_without_record"])
    print(f"{total['records']} records ({total['captions']} with a caption) of {total['clips']} clips: {path}")
    if unknown := report.get("records_without_data_on"):
        print(f"no data on {', '.join(unknown)}: neither summed nor named in a caption (see fer_report.json)")
    if causes:
        kinds = ", ".join(f"{count} {kind}" for kind, count in causes.most_common())
        print(f"no record for {kinds}: see fer_report.json")


def plot_clips(run: FerRun, clips: Iterable[FerClip]) -> None:
    """A plot of each clip that has a record, under plots/."""
    from data_prep.fer.pictures import plot_clip  # matplotlib starts slowly

    settings, records = run.settings, _records(run.out)
    for clip in clips:
        record = records.get(clip.id)
        if record is None:
            tqdm.write(f"no plot of {clip.id}: it has no record, see fer_report.json")
            continue
        faces = read_faces(clip.csv or run.out / "openface" / clip.csv_name, settings.confidence)
        aus = settings.summed(clip.label)
        path = run.out / "plots" / f"{clip.id.replace('/', '_')}.png"
        plot_clip(
            path,
            faces,
            find_peak(faces, aus, settings.hold),
            aus,
            settings.facs,
            title=clip.id,
            image=Image.open(run.out / record["image"]),
            label=clip.label,
            caption=record["caption"],
        )
        print(path)


def write_contact_sheets(out: Path) -> None:
    """Pages of peak frames by emotion, under contact_sheets/."""
    from data_prep.fer.pictures import contact_sheets  # matplotlib starts slowly

    for path in contact_sheets(out / "contact_sheets", _records(out).values(), out):
        print(path)


def _records(out: Path) -> dict[str, dict]:
    return {row["id"]: row for _, row in read_rows(out / "fer.jsonl")}
