"""What the doctor found: the kinds of findings, a table of them for a terminal, doctor.json. Not run by itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field

from swift_plugins.files import columns, padded

# What breaks results, and what is worth knowing; in the order in which the page lists them.
ERRORS = {
    "unreadable": "annotations that the reader refuses",
    "count_mismatch": "counts differ from the published ones",
    "leak": "conversations that also stand in a split they are scored on",
    "shared_video": "videos with clips in several splits",
    "unjoined_id": "records whose id is no clip of the dataset",
    "unjoined_emotions": "emotion rows that join to no clip",
    "no_emotion": "clips without emotion scores",
    "ambiguous_segment": "clips whose emotion scores may be another clip's; none taken",
    "missing_clip": "annotated clips that are not there",
    "broken_clip": "clips that cannot be decoded",
    "truncated_clip": "clips that are cut short or damaged",
    "black_clip": "black clips",
    "frozen_clip": "clips that show a still picture",
    "wrong_length": "clips of another length than annotated",
}
WARNINGS = {
    "known_bad_clip": "clips of the release that are known to be bad; the reader uses none of them",
    "split_absent": "splits whose annotations are not there",
    "no_split": "splits that the dataset does not have",
    "absent_label": "splits without a label that others have: share them out otherwise, or leave the label out",
    "own_data": "splits that are no part of a published dataset: counts were not compared; check them yourself",
    "no_clips": "splits of which no clip is there; build_amt --missing-media text-only does without",
    "silent_clip": "clips whose sound is silent; models look and read only, so they may stay",
    "no_sound": "clips without sound, or splits without any; models look and read only, so they may stay",
    "unannotated_file": "clips without an annotation; they are not used until the table names them",
    "mis_encoded_text": "texts in another encoding; repaired",
    "nul_in_text": "texts with NUL characters; left out",
    "mojibake_text": "texts that were decoded wrongly before they were published",
    "media_tag_in_text": "texts with a media tag; disarmed",
    "empty_text": "blank texts",
    "no_transcripts": "splits without transcripts",
    "no_emotions": "datasets without emotion labels",
    "segment_join": "joins by order of time that left clips or segments over",
    "emotion_tie": "clips with several strongest emotions",
    "emotion_all_zero": "clips without any emotion",
    "start_below_zero": "segments that start below zero",
    "zero_duration": "utterances that end when they start",
    "missing_dialogue": "dialogues that are absent",
    "utterance_gap": "dialogues with gaps",
    "duplicate_pair": "cause pairs that are given twice",
    "duplicate_scene": "conversations that stand in their split twice",
    "duplicate_text": "texts of a clip that come again elsewhere; of a clip that is there twice, leave one out",
    "shared_speaker": "speakers who are heard in training and in other splits; a split by speaker keeps them apart",
    "overlap": "conversations that another dataset's training split holds as well",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: its kind (a key of ERRORS or WARNINGS), where it is, what it is, and the clip it can be seen in."""

    kind: str
    where: str
    detail: str
    clip: str | None = None

    @property
    def breaks(self) -> bool:
        """Whether it changes results in silence, and not only should be known."""
        return self.kind in ERRORS


@dataclass
class Examination:
    """Everything that was found.

    counts: (dataset, split) → name → number here and the published one, None where it is own data. leaks: conversations
    in two places, one entry per pair of splits. clips: how many were looked at. seconds: what each part took.
    """

    findings: list[Finding] = field(default_factory=list)
    counts: dict[tuple[str, str], dict[str, tuple[int, int | None]]] = field(default_factory=dict)
    leaks: list[dict] = field(default_factory=list)
    clips: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """Exit status: 1 when something breaks results."""
        return int(any(finding.breaks for finding in self.findings))

    def add(self, kind: str, where: str, detail: str, clip: str | None = None) -> None:
        """Append a finding."""
        self.findings.append(Finding(kind, where, detail, clip))

    def by_kind(self) -> dict[str, list[Finding]]:
        """Findings by kind, those that break results first."""
        groups: dict[str, list[Finding]] = defaultdict(list)
        for finding in self.findings:
            groups[finding.kind].append(finding)
        order = dict.fromkeys((*ERRORS, *WARNINGS, *groups))  # a reader of one's own may have faults of its own
        return {kind: groups[kind] for kind in order if kind in groups}

    def tables(self) -> Iterator[tuple[str, list[str], dict[str, dict[str, tuple[int, int | None]]]]]:
        """Per dataset its name, the names of what was counted, and split → counts."""
        for dataset in dict.fromkeys(dataset for dataset, _ in self.counts):
            splits = {split: counts for (name, split), counts in self.counts.items() if name == dataset}
            yield dataset, list(dict.fromkeys(name for counts in splits.values() for name in counts)), splits

    def as_json(self) -> dict:
        """doctor.json."""
        return {
            "status": self.status,
            "finding_counts": {kind: len(found) for kind, found in self.by_kind().items()},
            "counts": {
                f"{dataset}:{split}": {
                    name: {"here": here, "published": there} for name, (here, there) in counts.items()
                }
                for (dataset, split), counts in self.counts.items()
            },
            "leaks": self.leaks,
            "clips": self.clips,
            "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
            "findings": [
                asdict(finding) | {"breaks_results": finding.breaks}
                for found in self.by_kind().values()
                for finding in found
            ],
        }


def title(kind: str) -> str:
    """A kind of finding in words."""
    return (ERRORS | WARNINGS).get(kind, kind.replace("_", " "))


def table(result: Examination) -> str:
    """The findings for a terminal."""
    lines = []
    for dataset, names, splits in result.tables():
        first = max(8, len(dataset))
        widths = {name: max(9, columns(name)) for name in names}
        lines.append("  ".join([f"{dataset:<{first}}", *(padded(name, widths[name], right=True) for name in names)]))
        for split, counts in splits.items():
            cells = [f"{f'{counts[name][0]:,}' if name in counts else '':>{widths[name]}}" for name in names]
            lines.append("  ".join([f"{split:<{first}}", *cells, verdict(counts)]))
        lines.append("")
    for kind, found in result.by_kind().items():
        mark = "BREAKS RESULTS" if kind in ERRORS else "warning"
        lines.append(f"{mark:<15} {kind:<18} {len(found):>6,}  {title(kind)}")
        few = found if kind in ("leak", "overlap", "count_mismatch") else found[:2]
        lines += [f"{'':<15} {finding.where}: {finding.detail}" for finding in few]
        if len(found) > len(few):
            lines.append(f"{'':<15} … and {len(found) - len(few):,} more")
    lines += ["", summary(result)]
    lines.append(", ".join(f"{name} {seconds:.1f} s" for name, seconds in result.seconds.items()))
    return "\n".join(lines)


def summary(result: Examination) -> str:
    """How many findings break results and how many are warnings."""
    errors = sum(finding.breaks for finding in result.findings)
    return f"findings that break results: {errors:,}; warnings: {len(result.findings) - errors:,}"


def verdict(counts: Mapping[str, tuple[int, int | None]]) -> str:
    """Whether a split's counts are the published ones, and which of those are not met."""
    if all(there is None for _, there in counts.values()):
        return "own data"
    wrong = [f"{name} {there:,}" for name, (here, there) in counts.items() if there is not None and here != there]
    return f"published: {', '.join(wrong)}" if wrong else "as published"
