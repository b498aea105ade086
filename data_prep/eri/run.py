"""ERI data from two served models: one describes person and scene, another infers why the person feels so.

    python -m data_prep.eri --rows mosei.mer.train.jsonl --media-root MEDIA --fer fer.jsonl --out DIR \
        --clue-url http://127.0.0.1:8001/v1 --clue-model M --reason-url http://127.0.0.1:8002/v1 --reason-model M
    python -m data_prep.eri --out DIR --review DIR/review.csv

The first asks (any OpenAI-compatible server; OPENAI_API_KEY, or EMOVERSE_CLUE_API_KEY and EMOVERSE_REASON_API_KEY);
the second applies a person's accept / reject / edit and asks nobody. DIR then holds eri.jsonl for the AMT builder,
rejected.jsonl (kept aside, with the rule that was broken), review.csv to be filled in, report.json, and journal.jsonl,
which --resume continues: killed at any moment, nothing that was answered is asked again. Without --reason-url only
the clues are asked for, without --clue-url only reasons: one GPU can serve the two models one after the other.
Prompts and rules: configs/eri.yaml.
"""

from __future__ import annotations

import argparse
import base64
import io
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

from PIL import Image

from data_prep.eri import quality as eri_quality
from data_prep.eri.review import apply_review, read_review, write_sheet
from swift_plugins.chat_client import Answer, Journal, Question, Server, api_key, ask, check, fingerprint
from swift_plugins.files import CONFIGS, InputError, read_json, read_rows, read_yaml, write_json, write_rows
from swift_plugins.frames import count_frames, read_frames, segment_centre_indices
from swift_plugins.tasks import TASKS, split_channel

CONFIG = CONFIGS / "eri.yaml"
PASSES = ("clues", "reason")
SERVERS = {"clues": "clue", "reason": "reason"}  # pass → name of its server in options, journal and report
_FIELDS = {"clues": {"transcript", "label", "expression"}}
_PRICE = ("input", "output")
_FIELDS["reason"] = _FIELDS["clues"] | {"character", "scene"}


@dataclass(frozen=True, slots=True)
class Clip:
    """What the models are told about one clip.

    picture: file of its peak frame, or of the clip itself, None where the row names none; size: its bytes, None where
    it does not exist; media: how the picture is named in files that others read.
    """

    id: str
    label: str
    transcript: str
    expression: str
    picture: Path | None
    size: int | None
    media: str


# Input


def read_config(path: str | Path) -> dict:
    """configs/eri.yaml or a replacement; `InputError` names the key or field that is missing or unknown."""
    config, reference = read_yaml(path), read_yaml(CONFIG)
    _same_keys(config, reference, "", path)
    for kind in PASSES:
        for part in ("system", "user"):
            try:
                used = {name for _, name, _, _ in Formatter().parse(config[kind][part]) if name is not None}
            except (ValueError, TypeError) as error:
                raise InputError(f"{kind}.{part}: {error}", path) from None
            if unknown := used - _FIELDS[kind]:
                raise InputError(f"{kind}.{part}: no field {{{min(unknown)}}}; there are {sorted(_FIELDS[kind])}", path)
    if config["attempts"] < 1 or config["pictures"]["frames"] < 1:
        raise InputError("attempts and pictures.frames must be at least 1", path)
    for pattern in config["quality"]["refusal"]:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise InputError(f"quality.refusal: {pattern!r}: {error}", path) from None
    for emotion, names in config["quality"]["emotions"].items():
        if not isinstance(names, list) or not all(isinstance(word, str) for word in names):
            raise InputError(f"quality.emotions.{emotion} must be a list of words (quote yes, no, on, off)", path)
    for kind, limits in config["quality"]["words"].items():
        if len(limits) != 2 or not all(isinstance(limit, int) for limit in limits):
            raise InputError(f"quality.words.{kind} must be [fewest, most]", path)
    for model, price in config["prices"].items():
        if not isinstance(price, dict) or not all(isinstance(price.get(key), int | float) for key in _PRICE):
            raise InputError(f"prices.{model} needs the numbers input and output", path)
    return config


def _same_keys(value: object, reference: object, where: str, path: str | Path) -> None:
    """Every key of the reference is there and of its kind; free-form maps (params, prices, emotions) may differ."""
    if isinstance(reference, dict):
        if not isinstance(value, dict):
            raise InputError(f"{where or 'the file'} must be a mapping", path)
        if where.rpartition(".")[2] in ("params", "prices", "emotions"):
            return
        if odd := sorted(set(value) ^ set(reference), key=str):
            state = "unknown" if odd[0] in value else "missing"
            raise InputError(f"{state} key {f'{where}.{odd[0]}'.lstrip('.')}", path)
        for key in reference:
            _same_keys(value[key], reference[key], f"{where}.{key}".lstrip("."), path)
    elif isinstance(reference, int | float) is not isinstance(value, int | float) or (
        not isinstance(reference, int | float) and type(value) is not type(reference)
    ):
        raise InputError(f"{where} must be of type {type(reference).__name__}, not {value!r}", path)


def read_clips(rows: Iterable[str | Path], media_root: str | Path, fer: str | Path | None, config: dict) -> list[Clip]:
    """Clips from `<dataset>.mer` AMT rows, in their order; `InputError` names the file and row that is wrong.

    The transcript is what stands before the task's identifier in the query. The picture is the peak frame that
    `fer` has for the clip, else the row's first image, else its clip.
    """
    captions, peaks = _read_fer(fer) if fer else ({}, {})
    clips: dict[str, Clip] = {}
    for file in rows:
        for number, row in read_rows(file):
            try:
                name, query, response, channel = row["id"], row["query"], row["response"], row["channel"]
                dataset, task, _ = split_channel(channel)
            except (KeyError, ValueError) as error:
                reason = f"has no {error}" if isinstance(error, KeyError) else str(error)
                raise InputError(reason, file, number) from None
            if task != "mer":
                raise InputError(f"channel {channel} holds no emotion label: give <dataset>.mer rows", file, number)
            label = TASKS["mer"].strict(response, dataset)
            if label is None:
                raise InputError(f"response {response!r} is not an emotion of {dataset}", file, number)
            transcript, found, _ = str(query).partition(TASKS["mer"].identifier)
            if not found:
                raise InputError(f"the query has no {TASKS['mer'].identifier} after the transcript", file, number)
            if name in clips:
                raise InputError(f"duplicate id {name}", file, number)
            for tag in ("<image>", "<video>"):
                transcript = transcript.replace(tag, "")
            media = next(iter(row.get("images") or row.get("videos") or ()), None)
            picture = peaks.get(name) or (Path(media_root, media) if media else None)
            expression = captions.get(name) or config["no_expression"]
            shown = media if name not in peaks else peaks[name].name
            size = picture.stat().st_size if picture and picture.is_file() else None
            clips[name] = Clip(name, label, " ".join(transcript.split()), expression, picture, size, shown or "")
    if not clips:
        raise InputError("holds no rows", next(iter(rows)))
    if not any(clip.transcript for clip in clips.values()):
        raise InputError(f"no row has a transcript before {TASKS['mer'].identifier}", next(iter(rows)))
    if all(clip.size is None for clip in clips.values()):
        raise InputError("holds none of the pictures and clips that the rows name", media_root)
    return list(clips.values())


def _read_fer(file: str | Path) -> tuple[dict[str, str | None], dict[str, Path]]:
    """Captions and peak frames by clip id; a caption is null where no Action Unit could be described."""
    captions, peaks = {}, {}
    for number, record in read_rows(file):
        if not isinstance(record.get("id"), str) or not isinstance(record.get("caption", 0), str | None):
            raise InputError("has no id or no caption", file, number)
        captions[record["id"]] = record["caption"]
        if record.get("image"):
            peaks[record["id"]] = Path(file).parent / record["image"]
    return captions, peaks


# Pictures

_UNDECODABLE = (InputError, OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def pictures(path: Path, frames: int, longest_side: int, jpeg_quality: int) -> list[str]:
    """JPEG data URLs: one of a picture file, at most `frames` of a clip, from the centres of equal parts.

    Raises one of `_UNDECODABLE` when nothing can be decoded.
    """
    if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".bmp"):
        images = [Image.open(path)]
    else:
        indices = segment_centre_indices(count_frames(path), frames)
        images = read_frames(path, list(dict.fromkeys(indices)))
    urls = []
    for image in images:
        image.thumbnail((longest_side, longest_side), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "JPEG", quality=jpeg_quality)
        urls.append("data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"))
    return urls


# The two passes


class Making:
    """One run: asks both passes, judges every answer, and sorts clips into accepted and kept aside.

    What is decided depends on the journal's answers and the order of the clips only, never on the order of arrival:
    attempt n of a clip is the same question in every run, and duplicates are settled in the order of the clips after
    everybody has answered.
    """

    def __init__(self, clips: list[Clip], config: dict, servers: dict[str, Server | None], models: dict[str, str]):
        self.clips, self.config, self.servers, self.models = clips, config, servers, models
        self.by_id = {clip.id: clip for clip in clips}
        self.clues: dict[str, dict[str, str]] = {}
        self.duplicates: dict[str, str] = {}  # key of an answer → what it repeats
        self.no_picture: dict[str, str] = {}
        self._verdicts: dict[str, tuple[str, str] | None] = {}

    def run(self, journal: Journal, concurrency: int) -> list[dict]:
        """Records of all clips in order, see `record`."""
        self._pass("clues", self.clips, journal, concurrency)
        described = []
        for clip in self.clips:
            answer, broken, _ = self._last("clues", clip, journal)
            if answer is not None and broken is None:
                self.clues[clip.id] = eri_quality.parse_clues(answer.text)
                described.append(clip)
        rule = self.config["quality"]["near_duplicate"]
        open_clips = described
        while open_clips:
            self._pass("reason", open_clips, journal, concurrency)
            passed = {}
            for clip in described:
                answer, broken, _ = self._last("reason", clip, journal)
                if answer is not None and broken is None:
                    passed[clip.id] = answer
            texts = [(name, answer.text) for name, answer in passed.items()]
            repeated = eri_quality.near_duplicates(texts, rule["words"], rule["most_similar"])
            for name, other in repeated.items():
                self.duplicates[self._question("reason", self.by_id[name], passed[name].about["attempt"]).key] = other
            open_clips = [self.by_id[name] for name in repeated]
        return [self.record(clip, journal) for clip in self.clips]

    def _pass(self, kind: str, clips: list[Clip], journal: Journal, concurrency: int) -> None:
        """Ask what the journal does not answer; nothing where this run has no server for the pass."""

        def again(question: Question, answer: Answer) -> Question | None:
            clip, attempt = self.by_id[answer.about["id"]], answer.about["attempt"]
            if self._broken(kind, clip, question.key, answer) is None or attempt == self.config["attempts"]:
                return None
            return self._question(kind, clip, attempt + 1)

        server = self.servers[kind]
        if server is not None:
            first = [self._question(kind, clip, 1) for clip in clips if clip.picture]
            ask(server, first, journal, concurrency=concurrency, then=again, desc=kind)

    def _question(self, kind: str, clip: Clip, attempt: int) -> Question:
        fields = {"transcript": clip.transcript, "label": clip.label, "expression": clip.expression}
        if kind == "reason":
            fields |= self.clues[clip.id]
        texts = {part: self.config[kind][part].format_map(fields) for part in ("system", "user")}
        params = self.config[kind]["params"] | {"seed": self.config["seed"] + attempt - 1}
        # Size, not pixels: a resumed run needs thousands of keys and should not decode thousands of clips for them.
        seen = [clip.media, clip.size, self.config["pictures"]] if kind == "clues" else None
        key = fingerprint(kind, clip.id, self.models[kind], texts, params, seen)

        def with_pictures() -> list[dict] | None:
            try:
                urls = pictures(clip.picture, **self.config["pictures"])
            except _UNDECODABLE as error:
                self.no_picture[clip.id] = f"{clip.media}: {getattr(error, 'reason', type(error).__name__)}"
                return None
            content: list[dict] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
            return _chat(texts["system"], [*content, {"type": "text", "text": texts["user"]}])

        messages = with_pictures if kind == "clues" else _chat(texts["system"], texts["user"])
        return Question(key, messages, params, {"id": clip.id, "pass": kind, "attempt": attempt})

    def _broken(self, kind: str, clip: Clip, key: str, answer: Answer) -> tuple[str, str] | None:
        if key in self.duplicates:
            return "near_duplicate", f"like the reason of {self.duplicates[key]}"
        if key not in self._verdicts:
            fields = {"transcript": clip.transcript, "label": clip.label, "expression": clip.expression}
            fields |= self.clues.get(clip.id, {})
            prompt = "\n".join(self.config[kind][part].format_map(fields) for part in ("system", "user"))
            self._verdicts[key] = eri_quality.check(
                kind, answer.text, answer.finish, prompt, clip.label, self.config["quality"]
            )
        return self._verdicts[key]

    def _last(self, kind: str, clip: Clip, journal: Journal) -> tuple[Answer | None, tuple[str, str] | None, bool]:
        """The answer that decides (the first good one, else the last), the rule it breaks, and whether one lacks."""
        answer = broken = None
        for attempt in range(1, self.config["attempts"] + 1):
            key = self._question(kind, clip, attempt).key
            if key not in journal.answers:
                return answer, broken, True
            answer = journal.answers[key]
            broken = self._broken(kind, clip, key, answer)
            if broken is None:
                break
        return answer, broken, False

    def broken_answers(self, journal: Journal) -> Counter:
        """How many answers broke which rule, `<pass>.<rule>`, retried ones included."""
        counts: Counter = Counter()
        for clip in self.clips:
            for kind in PASSES if clip.id in self.clues else PASSES[:1]:
                for attempt in range(1, self.config["attempts"] + 1):
                    key = self._question(kind, clip, attempt).key
                    if key in journal.answers and (broken := self._broken(kind, clip, key, journal.answers[key])):
                        counts[f"{kind}.{broken[0]}"] += 1
        return counts

    def record(self, clip: Clip, journal: Journal) -> dict:
        """The ERI record; with `rejected` {pass, rule, detail} when the clip is kept aside."""
        record: dict = {"id": clip.id, "reason": "", "clues": self.clues.get(clip.id), "label": clip.label}
        record |= {"models": dict(self.models), "attempts": {}}
        for kind in PASSES:
            if kind == "clues" and (clip.picture is None or clip.id in self.no_picture):
                detail = self.no_picture.get(clip.id, "the row names no picture or clip")
                return record | {"rejected": {"pass": kind, "rule": "no_picture", "detail": detail}}
            answer, broken, lacks = self._last(kind, clip, journal)
            if answer is not None:
                record["attempts"][kind] = answer.about["attempt"]
            if kind == "reason" and answer is not None:
                record["reason"] = " ".join(answer.text.split())
            if lacks and (answer is None or broken is not None):
                return record | {"rejected": {"pass": kind, "rule": "unanswered", "detail": "ask with --resume"}}
            if broken is not None:
                rejected = {"pass": kind, "rule": broken[0], "detail": broken[1]}
                return record | {"rejected": rejected | ({"answer": answer.text[:2000]} if kind == "clues" else {})}
        return record


def _chat(system: str, user: str | list[dict]) -> list[dict]:
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


# Output


def write_results(out: Path, records: list[dict]) -> dict:
    """Write eri.jsonl and rejected.jsonl; return the counts for the report."""
    records = sorted(records, key=lambda record: record["id"])  # the order of rows, runs and reviews leaves no trace
    good = [record for record in records if "rejected" not in record]
    aside = [record for record in records if "rejected" in record]
    write_rows(out / "eri.jsonl", good)
    write_rows(out / "rejected.jsonl", aside)
    kept_aside = Counter(f"{record['rejected']['pass']}.{record['rejected']['rule']}" for record in aside)
    return {
        "clips": len(records),
        "accepted": len(good),
        "rejected": len(aside),
        "rejected_by_rule": dict(sorted(kept_aside.items())),
        "reviewed": dict(sorted(Counter(r["review"] for r in records if "review" in r).items())),
    }


def _cost(totals: dict[str, dict], models: dict[str, str], prices: dict) -> None:
    """Add the cost in USD to the totals of each server whose model has a price."""
    for kind, model in models.items():
        total, price = totals.get(SERVERS[kind]), prices.get(model)
        if total is not None and price:
            spent = total["tokens_in"] * price["input"] + total["tokens_out"] * price["output"]
            total["cost_usd"] = round(spent / 1e6, 4)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m data_prep.eri", description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", nargs="+", metavar="FILE", help="AMT rows of <dataset>.mer channels")
    parser.add_argument("--media-root", metavar="DIR", help="folder that the rows' media paths are relative to")
    parser.add_argument("--fer", metavar="FILE", help="fer.jsonl: captions and peak frames by clip id")
    for kind, name in SERVERS.items():
        parser.add_argument(f"--{name}-url", metavar="URL", help=f"server of the {kind} pass, ends in /v1")
        parser.add_argument(f"--{name}-model", metavar="M", help="model name as that server lists it")
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument("--concurrency", type=int, default=16, metavar="N", help="requests at once (default 16)")
    parser.add_argument("--resume", action="store_true", help="go on with the journal in --out")
    parser.add_argument("--review", metavar="FILE", help="CSV or JSONL with accept, reject or edit per clip id")
    parser.add_argument("--config", default=CONFIG, metavar="FILE", help="prompts and rules (default configs/eri.yaml)")
    args = parser.parse_args(argv)
    asks = args.clue_url or args.reason_url
    if args.rows and not (asks and args.clue_model and args.reason_model and args.media_root):
        raise InputError(
            "--rows needs --media-root, --clue-model, --reason-model, and --clue-url or --reason-url or both"
        )
    if not args.rows and (asks or not args.review):
        raise InputError("give --rows to make reasons, or --review alone to apply one to an --out made before")
    if args.concurrency < 1:
        raise InputError(f"--concurrency {args.concurrency} is not a positive number")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    out = Path(args.out)
    if not args.rows:
        return _review_only(out, args.review)
    started = time.monotonic()
    config = read_config(args.config)
    clips = read_clips(args.rows, args.media_root, args.fer, config)
    if args.review:  # its mistakes are told before hours of asking
        known = {clip.id for clip in clips}
        for name, (_, _, number) in read_review(args.review).items():
            if name not in known:
                raise InputError(f"no row has the id {name}", args.review, number)
    models = {"clues": args.clue_model, "reason": args.reason_model}
    urls = {"clues": args.clue_url, "reason": args.reason_url}
    servers = {
        kind: Server(name, urls[kind], models[kind], api_key(name), config["timeout"]) if urls[kind] else None
        for kind, name in SERVERS.items()
    }
    if (out / "eri.jsonl").exists() and not (out / "journal.jsonl").exists():
        raise InputError("was not made here and would be lost: choose another --out", out / "eri.jsonl")
    for server in servers.values():
        if server is not None:
            check(server)
    with Journal(out / "journal.jsonl", args.resume) as journal:
        making = Making(clips, config, servers, models)
        records = making.run(journal, args.concurrency)
        totals = journal.totals()
        broken = making.broken_answers(journal)
        earlier = journal.loaded
    waiting = Counter(r["rejected"]["pass"] for r in records if r.get("rejected", {}).get("rule") == "unanswered")
    if args.review:
        records = apply_review(records, args.review)
    seen = {clip.id: {"transcript": clip.transcript, "media": clip.media} for clip in clips}
    earlier_report = read_json(out / "report.json") if (out / "report.json").exists() else {}
    untouched = earlier_report.get("review_sheet", "") if isinstance(earlier_report, dict) else ""
    new_sheet = write_sheet(out / "review.csv", records, seen, untouched)
    _cost(totals, models, config["prices"])
    report = write_results(out, records) | {
        "waiting_for_an_answer": dict(waiting),
        "answers_that_broke_a_rule": dict(sorted(broken.items())),
        "answers_of_earlier_runs": earlier,
        "servers": {
            SERVERS[kind]: {"url": server and server.shown_url, "model": models[kind], **totals.get(SERVERS[kind], {})}
            for kind, server in servers.items()
        },
        "review_sheet": new_sheet or untouched,
        "seconds": round(time.monotonic() - started, 1),
    }
    write_json(out / "report.json", report)
    _show(report)
    if not new_sheet:
        print(f"{out / 'review.csv'} holds changes of yours and is left as it is")
    for kind, count in waiting.items():
        print(f"{count} clips wait for their {kind}: run again with --resume", file=sys.stderr)
    return 1 if any(servers[kind] for kind in waiting) else 0


def _review_only(out: Path, review: str) -> int:
    records = [record for name in ("eri.jsonl", "rejected.jsonl") for _, record in read_rows(out / name)]
    counts = write_results(out, apply_review(records, review))
    report = out / "report.json"
    write_json(report, (read_json(report) if report.exists() else {}) | counts)
    _show(counts)
    return 0


def _show(report: dict) -> None:
    print(f"{report['accepted']} of {report['clips']} clips accepted, {report['rejected']} kept aside")
    for title in ("rejected_by_rule", "answers_that_broke_a_rule", "reviewed"):
        if report.get(title):
            print(f"  {title.replace('_', ' ')}: " + ", ".join(f"{key} {n}" for key, n in report[title].items()))
    for name, server in report.get("servers", {}).items():
        failures = ", ".join(f"{kind} {n}" for kind, n in server.get("failures", {}).items()) or "no failures"
        cost = f", {server['cost_usd']} USD" if "cost_usd" in server else ""
        print(
            f"  {name} ({server['model']}): {server.get('requests', 0)} requests, {failures}, "
            f"{server.get('tokens_in', 0)} + {server.get('tokens_out', 0)} tokens{cost}"
        )
