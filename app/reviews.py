"""The review of ERI reasons by several people: a file each, how far they agree, and what they decided together.

    reviews = Reviews("raw/mosei")             # eri.jsonl, rejected.jsonl and review.csv of data_prep.eri
    reviews.decide("anna", "mosei/train/a/1", "edit", "She laughs at the joke.")

Each decision is on the disk before `decide` returns: DIR/review.anna.csv, in the form that `data_prep.eri.review` reads
(so does `build_amt --review`), and DIR/review.agreed.csv, what more than half of those decided who looked at a clip; a
clip on which there is no such half is left out of it, to quality control. A review.csv that somebody filled in counts
as one more reviewer, `sheet`.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from data_prep.eri.review import SHEET, as_made, check_decision, read_records, read_review, read_sheet
from swift_plugins.files import InputError, atomic_open

AGREED, BY_HAND = "agreed", "sheet"  # names that no reviewer can have
_NAME = re.compile(r"[^\W_][\w-]{0,39}")

Decision = tuple[str, str]  # accept, reject or edit; the new reason


class Reviews:
    """Records and decisions of one folder. May be used by many threads at once."""

    def __init__(self, folder: Path):
        """Raises `InputError` where there are no records, or a reviewer's file names a clip that is not among them."""
        self.folder = folder
        files = [path for name in ("eri.jsonl", "rejected.jsonl") if (path := folder / name).is_file()]
        if not files:
            raise InputError("holds no eri.jsonl of data_prep.eri", folder)
        self.records = {record["id"]: as_made(record) for record in read_records(files)}
        self.order = list(self.records)
        self.seen = read_sheet(folder / "review.csv") if (folder / "review.csv").is_file() else {}
        self._lock = threading.RLock()
        self._files: dict[str, tuple[tuple[int, ...], dict[str, Decision]]] = {}
        self.all()

    def _path(self, reviewer: str) -> Path:
        return self.folder / ("review.csv" if reviewer == BY_HAND else f"review.{reviewer}.csv")

    def of(self, reviewer: str) -> dict[str, Decision]:
        """id → what this reviewer decided; read again when the file was changed by another program."""
        path = self._path(reviewer)
        with self._lock:
            if not path.is_file():
                return {}
            state = path.stat()
            stamp = (state.st_mtime_ns, state.st_size, state.st_ino)
            if reviewer not in self._files or self._files[reviewer][0] != stamp:
                read = read_review(path)
                for name, (_, _, row) in read.items():
                    if name not in self.records:
                        raise InputError(f"no record has the id {name}", path, row)
                decided = {name: (what, reason if what == "edit" else "") for name, (what, reason, _) in read.items()}
                self._files[reviewer] = stamp, {name: decision for name, decision in decided.items() if decision[0]}
            return self._files[reviewer][1]

    def all(self) -> dict[str, dict[str, Decision]]:
        """The decisions of every reviewer who has made one."""
        names = [path.name.removeprefix("review.").removesuffix(".csv") for path in self.folder.glob("review.*.csv")]
        names = [BY_HAND, *sorted(set(names) - {AGREED, BY_HAND})]
        return {name: decisions for name in names if (decisions := self.of(name))}

    def check_name(self, reviewer: str) -> str:
        """The name as it is used in the file's name; `InputError` for one that cannot be."""
        name = (reviewer or "").strip().lower()
        if not _NAME.fullmatch(name) or name in (AGREED, BY_HAND):
            raise InputError("a reviewer's name has 1 to 40 letters, digits, - or _, and is not agreed or sheet")
        return name

    def decide(self, reviewer: str, name: str, decision: str, reason: str = "") -> None:
        """Write a decision, "" to take it back; `InputError` for one that the builder would refuse."""
        reviewer, reason = self.check_name(reviewer), " ".join(reason.split())
        made = self.records[name]["reason"]
        check_decision(made, decision, reason)
        if decision == "edit" and reason == " ".join(made.split()):
            decision = "accept"
        with self._lock:
            decided = dict(self.of(reviewer))
            decided.pop(name, None)
            if decision:
                decided[name] = decision, reason if decision == "edit" else ""
            self._write(reviewer, decided)
            self._write(AGREED, self.agreed())

    def _write(self, reviewer: str, decided: dict[str, Decision]) -> None:
        text = io.StringIO(newline="")
        table = csv.writer(text, lineterminator="\r\n")
        table.writerow(SHEET[:3])
        table.writerows([name, *decided[name]] for name in self.order if name in decided)
        with atomic_open(self._path(reviewer)) as file:
            file.write("\ufeff" + text.getvalue())  # the mark, as in `write_sheet`

    def votes(self) -> dict[str, dict[str, Decision]]:
        """id → reviewer → decision."""
        votes: dict[str, dict[str, Decision]] = {}
        for reviewer, decided in self.all().items():
            for name, decision in decided.items():
                votes.setdefault(name, {})[reviewer] = decision
        return votes

    def agreed(self) -> dict[str, Decision]:
        """What more than half of a clip's reviewers decided; an edit is the same only with the same words."""
        found = {}
        for name, votes in self.votes().items():
            (decision, count), *_ = Counter(votes.values()).most_common(1)
            if 2 * count > len(votes):
                found[name] = decision
        return found

    def disputed(self) -> list[str]:
        """The clips that at least two have looked at and on which no decision has more than half."""
        votes, agreed = self.votes(), self.agreed()
        return [name for name in self.order if name in votes and name not in agreed]

    def agreement(self) -> list[dict[str, Any]]:
        """Per pair of reviewers: clips that both decided, share of the same decisions, Cohen's kappa (None where one
        of them, or both, decided all clips alike). Decisions are compared, not the words of edits."""
        from sklearn.metrics import cohen_kappa_score  # a second to import

        rows = []
        for (one, first), (two, second) in itertools.combinations(self.all().items(), 2):
            common = [name for name in self.order if name in first and name in second]
            left, right = [first[name][0] for name in common], [second[name][0] for name in common]
            same = sum(a == b for a, b in zip(left, right, strict=True))
            varied = len(set(left)) > 1 and len(set(right)) > 1
            kappa = float(cohen_kappa_score(left, right)) if varied else None
            rows.append({"pair": (one, two), "clips": len(common), "same": same, "kappa": kappa})
        return rows

    def queue(self, reviewer: str, show: str) -> list[str]:
        """The clips to go through: `open` ones of this reviewer, `decided` ones, `disputed` ones, or `all`."""
        if show == "disputed":
            return self.disputed()
        decided = self.of(reviewer)
        return [name for name in self.order if show == "all" or (name in decided) == (show == "decided")]
