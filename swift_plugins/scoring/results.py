"""Result files of `swift infer`: rows in, one `Channel` of parsed answers per channel out, every row accounted for.

Reads ms-swift 4 rows (`response`, `labels`, `messages`, `images`, `videos`, `channel`) and ms-swift 2 rows
(`response`, `label`, `query`), plain or `.gz`, one line at a time. What a row is about (`id`, `facts`) it says itself:
`amt:…` rows keep both through training and inference. Rows of others, which have neither, are joined to AMT rows
(`join_facts`) or known by the name of their clip; nothing is read back from a prompt. A row that must not be scored is
either refused with file and line, or left out and counted when the caller names its reason in `exclude`.

    channels = read_results(["output/result.jsonl"], exclude={"truncated"})
"""

from __future__ import annotations

import json
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from swift_plugins.files import InputError, read_rows
from swift_plugins.rows import check_row
from swift_plugins.tasks import TASKS, LabelTask, Task, split_channel

# Reasons for which a row can be left out instead of refused.
EXCLUSIONS = {
    "later-duplicates": "of rows that come twice, keep the first",
    "earlier-duplicates": "of rows that come twice, keep the last (the newest run of an appended file)",
    "truncated": "a last line that was cut off",
    "no-gold": "rows without a gold answer",
    "bad-gold": "rows whose gold answer is not one the dataset has",
}

Place = tuple[int, int]  # (number of the file, line)

_CLIP = re.compile(r"(.*dia[0-9]+)_?utt([0-9]+)(?:\.[^/]*)?$")
_MEDIA_TAG = re.compile(r"<(?:image|video|audio)>")
_EXAMPLE = 200  # characters of an unparsed response that are kept to be shown
_MEMO = 256  # responses up to this length are parsed once per distinct text


class Places:
    """(number of the file, line) of every row, eight bytes each."""

    def __init__(self) -> None:
        self.values = array("q")

    def append(self, place: Place) -> None:
        """Add the place of one more row."""
        self.values.append(place[0] << 40 | place[1])

    def __getitem__(self, row: int) -> Place:
        return self.values[row] >> 40, self.values[row] & (1 << 40) - 1

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Place]:
        return (self[row] for row in range(len(self)))


class _Identities:
    """By what rows are told to be the same, per row: a hash, whether equal hashes mean the same row or may mean the
    same words only, and a hash of the clip (0 where the row has an id of its own, or no clip)."""

    def __init__(self) -> None:
        self.values, self.sure, self.clips = array("q"), bytearray(), array("q")

    def append(self, value: int | None, sure: bool, clip: int) -> None:
        """Add one row; value None is a row that is like no other."""
        self.values.append(value or 0)
        self.sure.append(sure if value is not None else 2)
        self.clips.append(clip)


@dataclass
class Channel:
    """Parsed answers of one channel; all lists have one entry per row.

    part: the third part of its name. golds, strict, lenient: gold and two readings of the response, None where
    unparsed; official: the reading of the authors' script, None where it takes the task's `stand_in`, the list empty
    where there is no script. keys: what `Task.count` needs; units: rows of one unit (dialogue) are resampled together,
    None = the row alone. ids: what the rows call themselves, "" where they do not. confidences: the probability of the
    likeliest label where labels were ranked, None where the answer was generated. places: where they stand. unparsed:
    the first few (place, response) that strict cannot read. excluded: rows left out, by reason.
    """

    name: str
    dataset: str
    task: Task
    part: str = ""
    golds: list = field(default_factory=list)
    strict: list = field(default_factory=list)
    lenient: list = field(default_factory=list)
    official: list = field(default_factory=list)
    keys: list = field(default_factory=list)
    units: list = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    confidences: list[float | None] = field(default_factory=list)
    places: Places = field(default_factory=lambda: Places())
    identities: _Identities = field(default_factory=lambda: _Identities())
    unparsed: list[tuple[Place, str]] = field(default_factory=list)
    excluded: Counter = field(default_factory=Counter)

    def leave_out(self, rows: Collection[int]) -> None:
        """Remove the rows with these numbers."""
        gone = {self.places[row] for row in rows}
        self.unparsed = [example for example in self.unparsed if example[0] not in gone]
        for name in ("golds", "strict", "lenient", "official", "keys", "units", "ids", "confidences"):
            values = getattr(self, name)
            setattr(self, name, [value for index, value in enumerate(values) if index not in rows])
        self.places.values = array("q", (v for index, v in enumerate(self.places.values) if index not in rows))


def printable(text: str) -> str:
    """`text` with lone surrogates written out: JSON can hold them, UTF-8 files and terminals cannot."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def media_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Paths (or base64 texts) of a row's images and videos, in both spellings of ms-swift."""
    found = []
    for name in ("images", "videos"):
        for item in row.get(name) or ():
            if isinstance(item, dict):
                item = item.get("path") or item.get("bytes")
            if item:
                found.append(printable(str(item)))
    return tuple(found)


def query_of(row: dict) -> str:
    """The user's side of a row, without media tags; "" where the row does not hold it."""
    if isinstance(row.get("query"), str):
        return printable(_MEDIA_TAG.sub("", row["query"]))
    parts = []
    for message in row.get("messages") or ():
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            parts.append(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False))
    return printable(_MEDIA_TAG.sub("", "\n".join(parts)))


def _truncated(path: Path, row: int | str | None) -> bool:
    """Whether line `row` is the last of its file and has no line end: what a killed run leaves."""
    if path.suffix == ".gz":
        return False
    with path.open("rb") as file:
        last, number = b"", 0
        for number, line in enumerate(file, 1):  # noqa: B007
            last = line
    return number == row and not last.endswith(b"\n")


def _rows(files: Iterable[Path], exclude: Collection[str], lost: Counter) -> Iterator[tuple[int, int, dict]]:
    """(number of the file, line, row); a cut-off last line is dropped when `exclude` allows it."""
    for number, path in enumerate(files):
        try:
            for line, row in read_rows(path, halves=True):  # models say such things
                check_row(row, path, line)
                yield number, line, row
        except InputError as error:
            cut = "not a whole gzip file" in error.reason or (error.row is not None and _truncated(path, error.row))
            if not cut:
                raise
            if "truncated" not in exclude:
                raise InputError(
                    "the last line is cut off, the run was probably killed; `--exclude truncated` leaves it out",
                    path,
                    error.row,
                ) from None
            lost["truncated"] += 1


def reread(files: list[Path], places: Collection[Place]) -> dict[Place, dict]:
    """The rows at some places of files that `read_results` has accepted."""
    rows = {}
    for file, line, row in _rows(files, {"truncated"}, Counter()) if places else ():
        if (file, line) in places:
            rows[file, line] = row
    return rows


def facts_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a result row says of itself; of a row without facts, what the name of its clip tells (`dia3utt5.mp4`)."""
    facts = row.get("facts")
    if isinstance(facts, dict):
        return {key: value for key, value in facts.items() if value is not None}
    media = media_of(row)
    clip = _CLIP.match(media[-1]) if media else None
    if clip is None:
        return {}
    index = int(clip[2])
    return {"dialogue": clip[1], "index": index} | ({"previous": index - 1} if index > 1 else {})


def confidence_of(row: Mapping[str, Any], path: Path, line: int) -> float | None:
    """The probability of the likeliest label of a row whose labels were ranked, None for one that was generated."""
    if not (probabilities := row.get("probabilities")):
        return None
    values = [value for value in probabilities.values() if type(value) in (int, float) and 0 <= value <= 1]
    if len(values) < len(probabilities) or abs(sum(values) - 1) > 0.01:
        raise InputError(f"probabilities are no numbers that sum to 1, but {probabilities!r:.60}", path, line)
    return max(values)


class _Content(NamedTuple):
    """By what a result row without facts and an AMT row are known to be the same."""

    channel: str | None
    query: str
    gold: str


def join_facts(files: Collection[Path], rows: Collection[Path], task: str | None = None) -> dict[Place, dict]:
    """Place of each result row without id and facts → the AMT row (of the files `rows`) that it answers.

    Joined by channel, query and gold answer, exactly or not at all: `InputError` for a result that no AMT row made.
    AMT rows of the same content are told apart by their order, when the results are as many and stand in it.
    """
    known: dict[_Content, list[dict]] = defaultdict(list)
    for path in rows:
        for line, row in read_rows(path):
            check_row(row, path, line)
            content = _Content(_base(row.get("channel")), query_of(row), repr(row.get("response")))
            told = {key: row.get(key) for key in ("id", "channel")} | {"facts": row.get("facts") or {}}
            known[content].append(told)
    found: dict[_Content, list[Place]] = defaultdict(list)
    for file, line, row in _rows(files, {"truncated"}, Counter()):
        if "facts" not in row and "id" not in row:
            gold = repr(row.get("labels", row.get("label")))
            content = _Content(_base(row.get("channel") or task), query_of(row), gold)
            if content not in known:
                raise InputError("is the answer to none of the AMT rows given with --rows", [*files][file], line)
            found[content].append((file, line))
    joined: dict[Place, dict] = {}
    for content, places in found.items():
        candidates = known[content]
        if len(candidates) != len(places) and len({json.dumps(row["facts"]) for row in candidates}) > 1:
            file, line = places[0]
            reason = (
                f"could be the answer to {len(candidates)} AMT rows with the same words, and {len(places)} are here"
            )
            raise InputError(reason, [*files][file], line)
        joined |= dict(zip(places, candidates, strict=False))
    return joined


def read_results(
    files: Collection[Path], task: str | None = None, exclude: Collection[str] = (), rows: Collection[Path] = ()
) -> dict[str, Channel]:
    """Read result files into channels; `mosei.msa.zero` rows become part of `mosei.msa`, marked zero.

    task: the channel of rows that name none. exclude: reasons of EXCLUSIONS. rows: AMT row files, for results that do
    not say themselves what they are about.
    Raises InputError for everything that would make a figure wrong: an unknown channel, a gold answer outside the
    label set, a missing gold answer, rows that come twice, a cut-off last line, nothing to score.
    """
    files, excluded = [Path(file) for file in files], set(exclude)
    if task is not None:
        scored_as(task)
    lost: Counter = Counter()
    collector = _Collector(files, excluded, task, join_facts(files, list(map(Path, rows)), task) if rows else {})
    for file, line, row in _rows(files, excluded, lost):
        collector.add(file, line, row)
    collector.drop_duplicates()
    channels = {name: channel for name, channel in sorted(collector.channels.items()) if channel.golds}
    if not channels:
        raise InputError("no row to score", ", ".join(map(str, files)))
    if lost:
        next(iter(channels.values())).excluded.update(lost)
    return channels


def group_rows(rows: Iterable[dict]) -> dict[str, Channel]:
    """Result rows that are in memory (an evaluation during training) as channels; rows without gold are left out."""
    collector = _Collector([Path("rows")], {"no-gold", "bad-gold"}, None, {})
    for line, row in enumerate(rows, 1):
        collector.add(0, line, row)
    return {name: channel for name, channel in sorted(collector.channels.items()) if channel.golds}


class _Collector:
    """Puts rows into channels."""

    def __init__(self, files: list[Path], exclude: set[str], task: str | None, joined: Mapping[Place, dict]):
        self.files, self.exclude, self.task, self.joined = files, exclude, task, joined
        self.channels: dict[str, Channel] = {}
        self._texts: dict[str, str] = {}  # dialogues, once each
        self._names: dict[str, tuple[str, str]] = {}
        self._memo: dict[tuple[str, str], tuple[object, object]] = {}

    def add(self, file: int, line: int, row: dict) -> None:
        """Parse one row and append it to its channel; `InputError` for one that cannot be scored."""
        path = self.files[file]
        if "response" not in row:
            raise InputError("is not a result row: it has no `response`", path, line)
        row = row | self.joined.get((file, line), {})
        name, mark, channel = self._channel(row, path, line)
        gold = self._gold(channel, row, path, line)
        if gold is None:
            return
        response = row["response"]
        if isinstance(response, str):
            response = printable(response)
        strict, lenient = self._parse(channel, response)
        if not channel.task.counts_answer(mark):
            strict = lenient = ()
        facts = facts_of(row)
        if strict is None and len(channel.unparsed) < 20:
            shown = response if isinstance(response, str) else json.dumps(response)
            channel.unparsed.append(((file, line), shown[:_EXAMPLE]))
        self._identify(name, channel, row)
        channel.golds.append(gold)
        channel.strict.append(strict)
        channel.lenient.append(lenient)
        if channel.task.official_of(channel.part):
            channel.official.append(channel.task.official(response, channel.dataset))
        channel.keys.append(channel.task.row_key(facts, mark, gold))
        dialogue = facts.get("dialogue")
        channel.units.append(dialogue and self._texts.setdefault(dialogue, dialogue))
        channel.confidences.append(confidence_of(row, path, line))
        channel.ids.append(row["id"] if isinstance(row.get("id"), str) else "")
        channel.places.append((file, line))

    def _channel(self, row: dict, path: Path, line: int) -> tuple[str, str, Channel]:
        """(channel as the row names it, mark of the row, the channel in which it is scored)."""
        name = row.get("channel") or self.task
        if self.task and name and "." not in str(name):  # a channel of somebody else's, which is no <dataset>.<task>
            name = self.task
        if name is None:
            raise InputError("has no channel; say which one with --task, such as --task meld.mer", path, line)
        if name not in self._names:
            try:
                self._names[name] = scored_as(name)
            except InputError as error:
                raise InputError(error.reason, path, line) from None
        base, mark = self._names[name]
        if base not in self.channels:
            dataset, key, part = split_channel(base)
            self.channels[base] = Channel(base, dataset, TASKS[key].of_part(part), part)
        return name, mark, self.channels[base]

    def _gold(self, channel: Channel, row: dict, path: Path, line: int) -> object:
        """The gold answer; None for a row that is left out for its lack of a good one."""
        text = row.get("labels", row.get("label"))
        if isinstance(text, str):
            text = printable(text)
        if text is None:
            if "no-gold" not in self.exclude:
                raise InputError("has no gold answer; `--exclude no-gold` leaves such rows out", path, line)
            channel.excluded["no-gold"] += 1
            return None
        if not channel.golds:
            channel.task = channel.task.variant(text, channel.dataset)
        gold, found = self._parse(channel, text)
        if gold is None and channel.dataset in LabelTask.plain:  # its golds are written as their owner liked
            gold = found
        if gold is None:
            if "bad-gold" not in self.exclude:
                raise InputError(
                    f"gold answer {str(text)[:60]!r} is not one of {channel.name}{channel.task.gold_hint};"
                    " `--exclude bad-gold` leaves such rows out",
                    path,
                    line,
                )
            channel.excluded["bad-gold"] += 1
        return gold

    def _identify(self, name: str, channel: Channel, row: dict) -> None:
        media, query = media_of(row), query_of(row)
        if isinstance(row.get("id"), str):
            channel.identities.append(hash((name, row["id"])), True, 0)
        elif media or query:
            channel.identities.append(hash((name, query, media)), bool(media), hash(media) if media else 0)
        else:
            channel.identities.append(None, False, 0)

    def _parse(self, channel: Channel, response: object) -> tuple[object, object]:
        """Strict and lenient reading; short texts are read once, for results repeat a few answers many times."""
        task, dataset = channel.task, channel.dataset
        if not isinstance(response, str) or len(response) > _MEMO:
            return task.strict(response, dataset), task.lenient(response, dataset)
        key = (channel.name, response)
        if key not in self._memo:
            self._memo[key] = task.strict(response, dataset), task.lenient(response, dataset)
        return self._memo[key]

    def drop_duplicates(self) -> None:
        """Find rows that come twice; refuse them, or remove them from their channels when `exclude` says so."""
        keep_last = "earlier-duplicates" in self.exclude
        for channel in self.channels.values():
            repeated = _repeated(channel.identities, keep_last)
            if not repeated:
                continue
            if not self.exclude & {"later-duplicates", "earlier-duplicates"}:
                (before, earlier), (file, line) = (channel.places[row] for row in repeated[0])
                raise InputError(
                    f"is the same row as {self.files[before]}:{earlier}, and so are {len(repeated) - 1} others: two "
                    "runs in one file? `--exclude earlier-duplicates` or `later-duplicates` keeps one",
                    self.files[file],
                    line,
                )
            gone = {first if keep_last else later for first, later in repeated}
            channel.leave_out(gone)
            channel.excluded["duplicates"] += len(gone)


def _base(channel: str | None) -> str | None:
    """The channel in which rows of this one are scored; itself where it is none."""
    try:
        return scored_as(channel)[0] if channel is not None else None
    except InputError:
        return channel


def scored_as(channel: str) -> tuple[str, str]:
    """(channel that it is scored in, mark of its rows); InputError when no task scores it.

    `mosei.msa.zero` is part of `mosei.msa`, its rows marked as of zero sentiment. `ecf.ecpe.missed`, the targets that
    the model's own emotions missed, is part of `ecf.ecpe.predicted`: gold without a prediction, whatever the response.
    """
    try:
        dataset, key, part = split_channel(channel)
    except ValueError as error:
        raise InputError(str(error)) from None
    task = TASKS[key].of_part(part)
    if task.labels and dataset not in task.labels:
        raise InputError(
            f"no label set of {key} for dataset {dataset!r}: it is one of {', '.join(task.labels)}; AMT_EXTENSIONS=FILE"
            " names the file of a dataset of your own, --labels FILE the labels of any other rows"
        )
    part, mark = TASKS[key].parts.get(part, (part, ""))
    return ".".join(filter(None, (dataset, key, part))), mark


def _starts_again(sequence: Sequence[int], position: int) -> bool:
    """Whether from `position` on the sequence begins once more: up to five entries, at least two, are the same."""
    length = min(5, len(sequence) - position, position)
    return length >= 2 and sequence[position : position + length] == sequence[:length]


def _repeated(rows: _Identities, keep_last: bool) -> list[tuple[int, int]]:
    """(earlier, later) numbers of rows of one channel that come twice.

    Rows of one id are the same row, and so are two with the same query and media. Without either they may be two clips
    in which the same words are said, so there a row counts as repeated only in a second run: from a place on where the
    rows start again as the channel began. A second run over the same clips with another wording is found likewise.
    """
    values, sure = rows.values, rows.sure
    if 0 not in rows.clips and len(rows.clips):
        again = next((row for row in range(1, len(values)) if rows.clips[row] == rows.clips[0]), None)
        if again is not None and _starts_again(rows.clips, again):
            values, sure = rows.clips, bytearray(b"\1") * len(rows.clips)
    seen: dict[object, int] = {}
    repeated = []
    run: Counter = Counter()
    for row, value in enumerate(values):
        if sure[row] == 2:
            continue
        key: object = value
        if not sure[row]:
            if row and value == values[0] and _starts_again(values, row):
                run.clear()
            run[value] += 1
            key = (value, run[value])
        if key in seen:
            repeated.append((seen[key], row))
            if not keep_last:
                continue
        seen[key] = row
    return repeated
