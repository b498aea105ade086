"""Declare a dataset of your own: look at its table, and write the YAML file with every guess as a comment.

    python -m data_prep.new_dataset --from labels.csv --clips videos --out configs/datasets/mine.yaml
    python -m data_prep.new_dataset --from clips/ --out mine.yaml            # folders whose names are the labels

A table is CSV, TSV, JSON (a list of objects) or JSON lines. Read what was written before you build on it: a guess is a
guess. docs/own-data.md is a tutorial, `swift_plugins.declared` says what the keys mean.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data_prep.readers.declared import SPLIT_NAMES, DeclaredReader
from data_prep.readers.media import SUFFIXES
from data_prep.readers.tables import read_records
from swift_plugins.declared import ROLES, SPLITS, Declared, add, check_labels, fold
from swift_plugins.files import InputError, atomic_open, run_cli
from swift_plugins.options import option, parse

# What columns are called, folded and without punctuation; the first role that a column fits takes it.
NAMES = {
    "clip": "clip clipid clipname clippath video videoid videoname videopath file filename filepath path id 视频 文件",
    "transcript": "transcript transcription text utterance sentence caption subtitle 文本 台词 字幕 句子",
    "emotion": "emotion emotionlabel emo label labels category class 情绪 情感 标签 类别",
    "sentiment": "sentiment sentimentlabel polarity valence 情感极性 极性",
    "speaker": "speaker speakerid speakername person actor subject who 说话人 人物",
    "dialogue": "dialogue dialogueid dialogid dialog conversation conversationid scene 对话",
    "turn": "turn turnid utteranceid uttid utterancenumber index line 轮次",
    "causes": "causes cause causeutterances causeids 原因",
    "split": "split mode set partition fold subset 划分",
}
MOST_LABELS = 40
# The emotions of the FACS table by the words that people use for them.
EMOTIONS = {
    "happy": "happy happiness joy joyful glad 开心 高兴 快乐 喜悦 幸福",
    "sad": "sad sadness unhappy gloomy 难过 悲伤 伤心 不开心 不高兴",
    "angry": "angry anger mad 生气 愤怒 恼怒",
    "surprise": "surprise surprised 惊讶 惊奇 吃惊",
    "fear": "fear fearful afraid scared 害怕 恐惧",
    "disgust": "disgust disgusted 厌恶 恶心",
    "contempt": "contempt contemptuous 轻蔑 鄙视",
    "worried": "worried worry anxious 担心 焦虑 担忧",
    "neutral": "neutral calm none 中性 平静 无",
}


@dataclass(frozen=True)
class Options:
    """What a user may choose."""

    source: Path = option(flag="--from", metavar="FILE", help="the table, or a folder of clips in folders of labels")
    out: Path = option(metavar="FILE", help="the YAML file to write; its stem is the dataset's name")
    clips: Path | None = option(None, metavar="DIR", help="folder of the clips")
    force: bool = option(False, help="write over an existing file")


@dataclass
class Draft:
    """The file as it comes to be. notes: key → comments that stand above it."""

    content: dict[str, Any]
    notes: dict[str, list[str]]

    def put(self, key: str, value: Any, *notes: str) -> None:
        """One key, with what the user should know of it."""
        self.content[key] = value
        self.notes.setdefault(key, []).extend(notes)

    def text(self) -> str:
        """YAML, a comment above every key that was guessed."""
        lines = ["# Written by data_prep.new_dataset: check what it guessed. docs/own-data.md says what the keys mean."]
        for key, value in self.content.items():
            lines += [f"# {note}" for note in self.notes.get(key, ())]
            lines.append(yaml.safe_dump({key: value}, allow_unicode=True, sort_keys=False, width=10_000).rstrip())
        return "\n".join(lines) + "\n"


def draft(options: Options) -> Draft:
    """Everything that can be guessed of a source; `InputError` for one that cannot be read."""
    result = Draft({}, {})
    home = options.out.resolve().parent
    root = options.source.resolve() if options.source.is_dir() else options.source.resolve().parent
    if options.clips is not None:
        if not options.clips.is_dir():
            raise InputError("no such folder", options.clips)
        root = Path(os.path.commonpath([root, options.clips.resolve()]))
    result.put("root", os.path.relpath(root, home), "Folder of the data, relative to this file.")
    if options.source.is_dir():
        _draft_folder(result, options.source)
        return result
    source = options.source.resolve()
    result.put("source", source.relative_to(root).as_posix())
    encoding = _encoding(source)
    delimiter = _delimiter(source, encoding)
    if encoding != "utf-8":
        result.put("encoding", encoding, "The table is not UTF-8.")
    if delimiter not in (None, ",", "\t") or (delimiter == "\t" and source.suffix != ".tsv"):
        result.put("delimiter", delimiter)
    rows = [row for _, row in read_records(source, (), delimiter, encoding)]
    _draft_table(result, rows, root, options.clips)
    return result


def _draft_folder(result: Draft, top: Path) -> None:
    folders = sorted(path for path in top.iterdir() if path.is_dir() and any(_clips(path)))
    splits = bool(folders) and all(fold(path.name) in SPLIT_NAMES for path in folders)
    if splits:
        folders = [inner for path in folders for inner in sorted(path.iterdir()) if inner.is_dir()]
    labels = sorted({path.name for path in folders})
    if len(labels) < 2:
        raise InputError("holds no folders of clips whose names could be labels", top)
    result.put("source", "./", "Clips in folders; a folder's name is the label of its clips.")
    result.put("labels", {"mer": _refused(labels, top)}, "Labels as answers are to write them.")
    _draft_faces(result, labels)
    if not splits:
        result.put("split", {"by": "clip", "dev": 0.1, "test": 0.2}, "Which clips show one person is not known here.")


def _draft_table(result: Draft, rows: list[dict], root: Path, clips: Path | None) -> None:
    columns = _columns(rows)
    if "clip" not in columns:
        raise InputError(f"none of its columns ({', '.join(map(str, rows[0]))}) looks like the name of a clip")
    rest = [str(name) for name in rows[0] if name not in columns.values()]
    result.put("columns", columns, *([f"Not used: {', '.join(rest)}."] if rest else []))
    values = [str(row.get(columns["clip"])) for row in rows]
    pattern, found = _pattern(values, root, clips)
    result.put("clips", pattern, f"{found} of {len(rows)} clips are there under this name.")
    labels: dict[str, list[str]] = {}
    for role, task in (("emotion", "mer"), ("sentiment", "msa")):
        if role in columns:
            counts = Counter(
                str(row[columns[role]]).strip() for row in rows if row.get(columns[role]) not in (None, "")
            )
            words = _words(counts)
            labels[task] = _refused(words, root)
            counted = ", ".join(f"{word} {counts[word]}" for word in words)
            result.notes.setdefault("labels", []).append(f"{task}, from the column {columns[role]}: {counted}.")
    if "causes" in columns:
        labels["ecpe"] = [word.lower() for word in labels.get("mer", ()) if _emotion(word) != "neutral"]
        result.notes.setdefault("labels", []).append("ecpe: the emotions that have causes.")
    if labels:
        result.put("labels", labels, "As answers are to write them; values: renames what the table says.")
    _draft_faces(result, labels.get("mer", []))
    _draft_split(result, columns, rows)


def _columns(rows: list[dict]) -> dict[str, str]:
    """Role → column."""
    names = {str(column): re.sub(r"[\W_]+", "", fold(str(column))) for column in rows[0]}
    columns: dict[str, str] = {}
    for role in ROLES:
        # in the order of the words: `clip` before `id`
        for word in NAMES[role].split():
            free = [column for column, name in names.items() if name == word and column not in columns.values()]
            if free:
                columns[role] = free[0]
                break
    for role in ("emotion", "sentiment"):
        if role in columns:
            values = {str(row.get(columns[role])).strip() for row in rows} - {"", "None"}
            if not 1 < len(values) <= MOST_LABELS:
                del columns[role]
    for role, needed in (("turn", "dialogue"), ("causes", "dialogue"), ("causes", "emotion")):
        if role in columns and needed not in columns:
            del columns[role]
    return {role: columns[role] for role in ROLES if role in columns}


def _pattern(values: list[str], root: Path, clips: Path | None) -> tuple[str, int]:
    """How the clips' paths follow from the column, and how many are found so."""
    folders = [clips.resolve()] if clips else [root, *(path for path in sorted(root.iterdir()) if path.is_dir())]
    suffixed = all(Path(value).suffix.lower() in SUFFIXES for value in values)
    best, most = "", -1
    for folder in folders:
        prefix = "" if folder == root else folder.relative_to(root).as_posix() + "/"
        for ending in ("",) if suffixed else SUFFIXES:
            found = sum((folder / f"{value}{ending}").is_file() for value in values)
            if found > most:
                best, most = f"{prefix}{{clip}}{ending}", found
    return best, most


def _words(counts: Counter) -> list[str]:
    """The labels, the commonest first; of spellings that differ in case alone the commonest, for they are one label."""
    words: dict[str, str] = {}
    for word, _ in counts.most_common():
        words.setdefault(fold(word), word)
    return list(words.values())


def _refused(words: list[str], where: Path) -> list[str]:
    try:
        return check_labels(words)
    except ValueError as error:
        raise InputError(str(error), where) from None


def _emotion(word: str) -> str | None:
    """The emotion of the FACS table that a word stands for."""
    return next((emotion for emotion, words in EMOTIONS.items() if fold(word) in words.split()), None)


def _draft_faces(result: Draft, labels: list[str]) -> None:
    """Which emotion of the FACS table a label is, where facial movements are to be put into words."""
    known = {label: emotion for label in labels if (emotion := _emotion(label))}
    strange = [label for label in labels if label not in known]
    notes = ["For data_prep.fer: which emotion of configs/facs.yaml each label is."]
    if strange:
        notes.append(f"Not known, so all movements are named: {', '.join(strange)}.")
    if labels:
        result.put("emotion_aus", known | dict.fromkeys(strange, "neutral"), *notes)


def _draft_split(result: Draft, columns: dict[str, str], rows: list[dict]) -> None:
    if "split" in columns:
        names = Counter(str(row.get(columns["split"])).strip() for row in rows)
        if strange := [name for name in names if fold(name) not in SPLIT_NAMES]:
            result.content.setdefault("values", {})["split"] = dict.fromkeys(strange)
            result.notes.setdefault("values", []).append(
                f"split: train, dev or test for {', '.join(strange)}? null: none."
            )
        return
    by = [role for role in ("speaker", "dialogue") if role in columns] + ["clip"] * ("dialogue" not in columns)
    for rule in by:
        result.content["split"] = {"by": rule, "dev": 0.1, "test": 0.2}
        if _splits(result, columns, rows):
            break
    missed = by[: by.index(result.content["split"]["by"])]
    notes = [f"By {role}, no clip would be left for some split." for role in missed]
    result.put("split", result.content.pop("split"), "Whole groups by a keyed hash; a group is never in two.", *notes)


def _splits(result: Draft, columns: dict[str, str], rows: list[dict]) -> bool:
    """Whether the rule leaves clips for every split."""
    from data_prep.readers.declared import Row, by_rule

    def cell(row: dict, role: str) -> str:
        return str(row.get(columns[role]) or "").strip() if role in columns else ""

    plain = [
        Row(
            Path(),
            place,
            cell(row, "clip"),
            None,
            "",
            None,
            cell(row, "speaker"),
            cell(row, "dialogue"),
            place,
            None,
            None,
            None,
        )
        for place, row in enumerate(rows)
    ]
    content = {"source": "-", "columns": columns, "split": result.content["split"]}
    labels = {task: ["a", "b"] for task in ("mer", "msa", "ecpe")}
    try:
        by_rule(plain, Declared(**content, labels=labels))
    except InputError:
        return False
    return True


def _encoding(path: Path) -> str:
    """utf-8, or gb18030 where the bytes are that and not UTF-8."""
    data = path.read_bytes() if path.is_file() else b""
    for encoding in ("utf-8", "gb18030"):
        try:
            data.decode(encoding)
            return encoding
        except UnicodeDecodeError:
            continue
    return "utf-8"


def _delimiter(path: Path, encoding: str) -> str | None:
    """What stands between the names of a CSV file's columns."""
    if path.suffix in (".json", ".jsonl") or not path.is_file():
        return None
    with path.open(encoding=encoding, errors="replace", newline="") as file:
        head = file.readline()
    return max((",", ";", "\t", "|"), key=head.count)


def _clips(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def main() -> int:
    """Guess, write, and read it back as every other program will."""
    options = parse(Options, __doc__, prog="python -m data_prep.new_dataset")
    if not options.source.exists():
        raise InputError("no such file", options.source)
    if options.out.exists() and not options.force:
        raise InputError("exists; --force writes over it", options.out)
    result = draft(options)
    text = result.text()
    with atomic_open(options.out) as file:
        file.write(text)
    print(text, end="")
    if not result.content.get("labels"):
        print("no column of labels was found: name it under columns, its words under labels", file=sys.stderr)
    declared = add(options.out)
    counts = {split: len(list(DeclaredReader(declared).read(declared.home, split, []))) for split in SPLITS}
    print(f"\nwritten: {options.out}; clips: {', '.join(f'{split} {count:,}' for split, count in counts.items())}")
    return 0


if __name__ == "__main__":
    run_cli(main)
