"""Result files of `swift infer`: rows in, one `Channel` of parsed answers per channel out, every row accounted for.

Reads ms-swift 4 rows (`response`, `labels`, `messages`, `images`, `videos`, `channel`) and ms-swift 2 rows
(`response`, `label`, `query`), plain or `.gz`, one line at a time. A row that must not be scored is either refused with
file and line, or left out and counted when the caller names its reason in `exclude`.

    channels = read_results(["output/result.jsonl"], exclude={"truncated"})
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from swift_plugins.files import InputError, read_rows
from swift_plugins.tasks import SENTIMENT_SCORE, TASKS, Task, split_channel

# Reasons for which a row can be left out instead of refused.
EXCLUSIONS = {
    "later-duplicates": "of rows that come twice, keep the first",
    "earlier-duplicates": "of rows that come twice, keep the last (the newest run of an appended file)",
    "truncated": "a last line that was cut off",
    "no-gold": "rows without a gold answer",
    "bad-gold": "rows whose gold answer is not one the dataset has",
}

_CLIP = re.compile(r"(.*dia[0-9]+)_?utt([0-9]+)(?:\.[^/]*)?$")
LINE = re.compile(r"^([0-9]{1,6})_([a-z]+)\. .*$", re.MULTILINE)  # a line of an ECPE conversation: `3_joy. Ross: …`
_MEDIA_TAG = re.compile(r"<(?:image|video|audio)>")
_EXAMPLE = 200  # characters of an unparsed response that are kept to be shown
_MEMO = 256  # responses up to this length are parsed once per distinct text


@dataclass
class Channel:
    """Parsed answers of one channel; all lists have one entry per row.

    golds, strict, lenient: gold and the two readings of the response, None = unparsed.
    keys: what `Task.count` needs; units: rows of one unit (dialogue) are resampled together, None = the row alone.
    targets: ecpe only, (index, emotion, index of the previous utterance or None) of the target, None where unknown.
    places: (number of the file, line). unparsed: the first few (place, response) that strict cannot read.
    excluded: rows left out, by reason.
    """

    name: str
    dataset: str
    task: Task
    golds: list = field(default_factory=list)
    strict: list = field(default_factory=list)
    lenient: list = field(default_factory=list)
    keys: list = field(default_factory=list)
    units: list = field(default_factory=list)
    targets: list = field(default_factory=list)
    places: list = field(default_factory=list)
    unparsed: list = field(default_factory=list)
    excluded: Counter = field(default_factory=Counter)


def printable(text: str) -> str:
    """`text` with lone surrogates written out: JSON can hold them, UTF-8 files and terminals cannot."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def media_of(row: dict) -> tuple[str, ...]:
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
        last = number = 0
        for number, line in enumerate(file, 1):  # noqa: B007
            last = line
    return number == row and not last.endswith(b"\n")


def _rows(files: Iterable[Path], exclude: Collection[str], lost: Counter) -> Iterator[tuple[int, int, dict]]:
    """(number of the file, line, row); a cut-off last line is dropped when `exclude` allows it."""
    for number, path in enumerate(files):
        try:
            for line, row in read_rows(path):
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


def reread(files: list[Path], places: Collection[tuple[int, int]]) -> dict[tuple[int, int], dict]:
    """The rows at some places of files that `read_results` has accepted."""
    rows = {}
    for file, line, row in _rows(files, {"truncated"}, Counter()) if places else ():
        if (file, line) in places:
            rows[file, line] = row
    return rows


def read_ids(files: Iterable[Path]) -> dict[tuple[str, str, str], deque[str]]:
    """(channel, query, gold) → ids of AMT rows in file order: result rows hold no id, so they are joined by content."""
    ids = defaultdict(deque)
    for path in files:
        for _, row in read_rows(path):
            ids[row.get("channel"), query_of(row), row.get("response")].append(str(row.get("id")))
    return ids


def _conversation(clip: re.Match | None, lines: dict[int, str], query: str, row: int) -> object:
    """What tells conversations apart: the dialogue in the clip's name, or the lines of the prompt, or the row alone."""
    if clip:
        return clip[1]
    if lines:
        return hash(frozenset(match[0] for match in LINE.finditer(query)))
    return row


def _target(
    clip: re.Match | None, lines: dict[int, str], query: str, gold: tuple
) -> tuple[int, str | None, int | None] | None:
    """(index, emotion or None, previous index or None) of an ecpe row's target; None where the row does not say."""
    if clip:
        index = int(clip[2])
    elif gold:
        index = gold[0][0]
    elif lines:
        index = int(list(LINE.finditer(query))[-1][1])  # the target's line is the last one of the prompt
    else:
        return None
    emotion = gold[0][1] if gold else lines.get(index)
    previous = [other for other in lines if other < index] or ([index - 1] if not lines and index > 1 else [])
    return index, emotion, max(previous, default=None)


def read_results(
    files: Collection[Path], task: str | None = None, exclude: Collection[str] = (), rows: Collection[Path] = ()
) -> dict[str, Channel]:
    """Read result files into channels; `mosei.msa.zero` rows become part of `mosei.msa`, marked zero.

    task: the channel of rows that name none. exclude: reasons of EXCLUSIONS. rows: AMT row files whose ids say which
    dialogue a result belongs to, for results without clips.
    Raises InputError for everything that would make a figure wrong: an unknown channel, a gold answer outside the
    label set, a missing gold answer, rows that come twice, a cut-off last line, nothing to score.
    """
    files, exclude = [Path(file) for file in files], set(exclude)
    if task is not None:
        _known(task)
    ids = read_ids(map(Path, rows))
    lost = Counter()
    collector = _Collector(files, exclude, task, ids)
    for file, line, row in _rows(files, exclude, lost):
        collector.add(file, line, row)
    _drop_duplicates(files, exclude, collector)
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
    """Puts rows into channels.

    identities, clips, order: of every row what it is, what it shows, and (channel, index) of its answer.
    """

    def __init__(self, files: list[Path], exclude: set[str], task: str | None, ids: dict):
        self.files, self.exclude, self.task, self.ids = files, exclude, task, ids
        self.channels: dict[str, Channel] = {}
        self.identities: list = []
        self.clips: list[int | None] = []
        self.order: list[tuple[Channel, int]] = []
        self._known: dict[str, tuple[str, bool]] = {}
        self._memo: dict = {}

    def add(self, file: int, line: int, row: dict) -> None:
        path = self.files[file]
        if "response" not in row:
            raise InputError("is not a result row: it has no `response`", path, line)
        name = row.get("channel") or self.task
        if name is None:
            raise InputError("has no channel; say which one with --task, such as --task meld.mer", path, line)
        if name not in self._known:
            try:
                self._known[name] = _known(name)
            except InputError as error:
                raise InputError(error.reason, path, line) from None
        base, marked = self._known[name]
        if base not in self.channels:
            dataset, key, _ = split_channel(base)
            self.channels[base] = Channel(base, dataset, TASKS[key])
        channel = self.channels[base]
        gold_text = row.get("labels", row.get("label"))
        if isinstance(gold_text, str):
            gold_text = printable(gold_text)
        starts = channel.task.key == "msa" and not channel.golds
        if starts and SENTIMENT_SCORE.strict(gold_text, channel.dataset) is not None:
            channel.task = SENTIMENT_SCORE
        if gold_text is None:
            if "no-gold" not in self.exclude:
                raise InputError("has no gold answer; `--exclude no-gold` leaves such rows out", path, line)
            channel.excluded["no-gold"] += 1
            return
        gold = self._parse(channel, gold_text)[0]
        if gold is None:
            if "bad-gold" not in self.exclude:
                shown = str(gold_text)[:60]
                hint = "; AMT_FACS names the FACS file of its phrases" if channel.task.key == "fer" else ""
                raise InputError(
                    f"gold answer {shown!r} is not one of {base}{hint}; `--exclude bad-gold` leaves such rows out",
                    path,
                    line,
                )
            channel.excluded["bad-gold"] += 1
            return
        response = row["response"]
        if isinstance(response, str):
            response = printable(response)
        strict, lenient = self._parse(channel, response)
        media, query = media_of(row), query_of(row)
        waiting = self.ids.get((name, query, gold_text))
        clip = _CLIP.match(waiting.popleft() if waiting else media[-1] if media else "")
        if channel.task.key == "ecpe":
            if marked:
                strict = lenient = ()
            lines = {int(match[1]): match[2] for match in LINE.finditer(query)}
            conversation = _conversation(clip, lines, query, len(self.order))
            channel.keys.append(conversation)
            channel.units.append(conversation)
            predicted = base.endswith(".predicted")
            channel.targets.append(None if marked else _target(clip, lines, query, () if predicted else gold))
        else:
            channel.keys.append(marked or gold == 0)
            channel.units.append(clip[1] if clip else None)
        if strict is None and len(channel.unparsed) < 20:
            shown = response if isinstance(response, str) else json.dumps(response)
            channel.unparsed.append(((file, line), shown[:_EXAMPLE]))
        self.order.append((channel, len(channel.golds)))
        self.identities.append((hash((name, query, media)), bool(media)) if media or query else None)
        self.clips.append(hash((base, media)) if media else None)
        channel.golds.append(gold)
        channel.strict.append(strict)
        channel.lenient.append(lenient)
        channel.places.append((file, line))

    def _parse(self, channel: Channel, response: object) -> tuple[object | None, object | None]:
        """Strict and lenient reading; short texts are read once, for results repeat a few answers many times."""
        task, dataset = channel.task, channel.dataset
        if not isinstance(response, str) or len(response) > _MEMO:
            return task.strict(response, dataset), task.lenient(response, dataset)
        key = (channel.name, response)
        if key not in self._memo:
            self._memo[key] = task.strict(response, dataset), task.lenient(response, dataset)
        return self._memo[key]


def _known(channel: str) -> tuple[str, bool]:
    """(channel that it is scored in, whether its rows are marked); InputError when no task scores it.

    `mosei.msa.zero` marks zero sentiment. `ecf.ecpe.missed` marks targets that the model's own MER pass missed: part of
    `ecf.ecpe.predicted`, where they count as gold without a prediction, whatever the response.
    """
    try:
        dataset, key, part = split_channel(channel)
    except ValueError as error:
        raise InputError(str(error)) from None
    labels = TASKS[key].labels
    if labels and dataset not in labels:
        raise InputError(f"no label set of {key} for dataset {dataset!r}: it is one of {', '.join(labels)}")
    if (key, part) == ("msa", "zero"):
        return f"{dataset}.msa", True
    if (key, part) == ("ecpe", "missed"):
        return f"{dataset}.ecpe.predicted", True
    return channel, False


def _starts_again(sequence: list, position: int) -> bool:
    """Whether from `position` on the sequence begins once more: up to five entries, at least two, are the same."""
    length = min(5, len(sequence) - position, position)
    return length >= 2 and sequence[position : position + length] == sequence[:length]


def _drop_duplicates(files: list[Path], exclude: set[str], collector: _Collector) -> None:
    """Find rows that come twice; refuse them, or remove them from their channels.

    Two rows with the same channel, query and media are the same row. Without media they may be two clips in which the
    same words are said, so there a row counts as repeated only in a second run: from a place on where the rows start
    again as the file began. A second run over the same clips with another wording is found likewise.
    """
    identities, order, clips = collector.identities, collector.order, collector.clips
    if not identities:
        return
    first_seen = dict(reversed([(clip, position) for position, clip in enumerate(clips)]))
    again = next((position for position, clip in enumerate(clips) if first_seen[clip] < position), None)
    if again is not None and None not in first_seen and _starts_again(clips, again):
        identities = [(clip, True) for clip in clips]
    first = identities[0]
    seen, repeated, run = {}, [], Counter()
    for position, identity in enumerate(identities):
        if identity is None:
            continue
        if identity == first and _starts_again(identities, position):
            run.clear()
        value, media = identity
        key = value
        if not media:
            run[value] += 1
            key = (value, run[value])
        if key in seen:
            repeated.append((seen[key], position))
            if "earlier-duplicates" not in exclude:
                continue
        seen[key] = position
    if not repeated:
        return

    def place(position: int) -> tuple[Path, int]:
        channel, index = order[position]
        file, line = channel.places[index]
        return files[file], line

    if not exclude & {"later-duplicates", "earlier-duplicates"}:
        (path, line), (before, earlier) = place(repeated[0][1]), place(repeated[0][0])
        raise InputError(
            f"is the same row as {before}:{earlier}, and so are {len(repeated) - 1} others: two runs in one file?"
            " `--exclude earlier-duplicates` or `later-duplicates` keeps one",
            path,
            line,
        )
    drop = defaultdict(set)
    for earlier, later in repeated:
        channel, index = order[earlier if "earlier-duplicates" in exclude else later]
        drop[channel.name].add(index)
    for channel in {id(channel): channel for channel, _ in order}.values():
        gone = drop[channel.name]
        if not gone:
            continue
        gone_places = {channel.places[index] for index in gone}
        channel.unparsed = [example for example in channel.unparsed if example[0] not in gone_places]
        for name in ("golds", "strict", "lenient", "keys", "units", "targets", "places"):
            values = getattr(channel, name)
            setattr(channel, name, [value for index, value in enumerate(values) if index not in gone])
        channel.excluded["duplicates"] += len(gone)
