r"""ERI data from served models: one describes person and scene, another infers why the person feels so.

    python -m data_prep.eri --rows mosei.mer.train.jsonl --media-root MEDIA --fer fer.jsonl --out DIR \
        --clue-url http://127.0.0.1:8001/v1 --clue-model M --reason-url http://127.0.0.1:8002/v1 --reason-model M \
        [--tone-url http://127.0.0.1:8003/v1 --tone-model M]
    python -m data_prep.eri --out DIR --review DIR/review.csv

The first asks (any OpenAI-compatible server; OPENAI_API_KEY, or EMOVERSE_CLUE_API_KEY, EMOVERSE_REASON_API_KEY and
EMOVERSE_TONE_API_KEY). With --tone-model a third model hears the clips that have sound (input_audio), and reasons draw
on the tone of the voice as well. The second applies a person's accept / reject / edit and asks nobody. DIR then holds
eri.jsonl for the AMT builder, rejected.jsonl (kept aside, with the rule that was broken), review.csv to be filled in,
report.json, and journal.jsonl, which --resume continues: killed at any moment, nothing that was answered is asked
again. A run asks only the servers whose URL it is given: one GPU can serve the models one after the other.
Prompts and rules: configs/eri.yaml.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from data_prep.eri import quality
from data_prep.eri.clips import ClipFacts, pictures, read_clips, wav
from data_prep.eri.config import CONFIG, PASSES, EriConfig, Pass, load
from data_prep.eri.review import apply_review, read_records, read_review, write_sheet
from swift_plugins.chat_client import Answer, AnswerJournal, Question, Server, api_key, ask, check, fingerprint
from swift_plugins.files import InputError, read_json, write_json, write_rows
from swift_plugins.options import option, parse

SERVERS: dict[Pass, str] = {"clues": "clue", "tone": "tone", "reason": "reason"}  # names in options, journal and report


@dataclass(frozen=True)
class Options:
    """The command line."""

    out: Path = option(help="folder of the records, the report and the journal", metavar="DIR")
    rows: tuple[Path, ...] = option((), help="AMT rows of <dataset>.mer channels", metavar="FILE")
    media_root: Path | None = option(None, help="folder that the rows' media paths are relative to", metavar="DIR")
    fer: Path | None = option(None, help="fer.jsonl: captions and peak frames by clip id", metavar="FILE")
    clue_url: str | None = option(None, help="server of the clues pass, ends in /v1", metavar="URL")
    clue_model: str | None = option(None, help="model name as that server lists it", metavar="M")
    reason_url: str | None = option(None, help="server of the reason pass, ends in /v1", metavar="URL")
    reason_model: str | None = option(None, help="model name as that server lists it", metavar="M")
    tone_url: str | None = option(None, help="server of the tone pass (it hears the clips), ends in /v1", metavar="URL")
    tone_model: str | None = option(None, help="model name as that server lists it; without it no tone", metavar="M")
    concurrency: int = option(16, help="requests at once (default 16)", metavar="N")
    resume: bool = option(False, help="go on with the journal in --out")
    review: Path | None = option(None, help="CSV or JSONL with accept, reject or edit per clip id", metavar="FILE")
    config: Path = option(CONFIG, help="prompts and rules (default configs/eri.yaml)", metavar="FILE")

    @property
    def models(self) -> dict[Pass, str]:
        """The model of each pass."""
        models: dict[Pass, str] = {"clues": self.clue_model or "", "reason": self.reason_model or ""}
        return models | ({"tone": self.tone_model} if self.tone_model else {})

    def servers(self, timeout: float) -> dict[Pass, Server | None]:
        """The server of each pass; None where this run does not make it."""
        urls: dict[Pass, str | None] = {"clues": self.clue_url, "tone": self.tone_url, "reason": self.reason_url}
        return {
            kind: Server(name, url, self.models[kind], api_key(name), timeout) if (url := urls[kind]) else None
            for kind, name in SERVERS.items()
        }

    def check(self) -> None:
        """Raise `InputError` for options that do not go together."""
        asks = self.clue_url or self.tone_url or self.reason_url
        if self.rows and not (asks and self.clue_model and self.reason_model and self.media_root):
            needs = "--media-root, --clue-model, --reason-model, and --clue-url or --reason-url or both"
            raise InputError(f"--rows needs {needs}")
        if self.tone_url and not self.tone_model:
            raise InputError("--tone-url needs --tone-model")
        if not self.rows and (asks or not self.review):
            raise InputError("give --rows to make reasons, or --review alone to apply one to an --out made before")
        if self.concurrency < 1:
            raise InputError(f"--concurrency {self.concurrency} is not a positive number")


class Decided(NamedTuple):
    """The answer that decides over a pass of a clip: the first good one, else the last, with the rule it breaks."""

    answer: Answer | None
    attempt: int  # of the answer
    broken: tuple[str, str] | None
    lacks: bool  # further attempts have no answer yet

    @property
    def good(self) -> bool:
        """Whether there is an answer that keeps all rules."""
        return self.answer is not None and self.broken is None


class EriRun:
    """One run: asks every pass, checks every answer, and sorts clips into accepted and kept aside.

    What is decided depends on the journal's answers and the order of the clips only, never on the order of arrival:
    attempt n of a clip is the same question in every run, and duplicates are settled in the order of the clips after
    everybody has answered.
    """

    def __init__(self, clips: list[ClipFacts], config: EriConfig, models: dict[Pass, str], journal: AnswerJournal):
        self.clips, self.config, self.models, self.journal = clips, config, models, journal
        self.by_id = {clip.id: clip for clip in clips}
        self.passes = tuple(kind for kind in PASSES if kind in models)
        self.clues: dict[str, dict[str, str]] = {}
        self.tones: dict[str, str] = {}
        self.duplicates: dict[str, str] = {}  # key of an answer → what it repeats
        self.no_picture: dict[str, str] = {}
        self.no_sound: dict[str, str] = {}
        self._verdicts: dict[str, tuple[str, str] | None] = {}

    def ask(self, servers: dict[Pass, Server | None], concurrency: int) -> None:
        """Ask what the journal does not answer yet, of the passes that have a server."""
        self._pass("clues", self.clips, servers["clues"], concurrency)
        self._pass("tone", [clip for clip in self.clips if clip.sound], servers["tone"], concurrency)
        described = []
        for clip in self.clips:
            decided = self._decided("clues", clip)
            if decided.good:
                self.clues[clip.id] = quality.parse_clues(decided.answer.text)
                if self._is_heard(clip, listens=bool(servers["tone"] or servers["reason"])):
                    described.append(clip)
        rule = self.config.quality.near_duplicate
        open_clips = described
        while open_clips:
            self._pass("reason", open_clips, servers["reason"], concurrency)
            passed = {clip.id: decided for clip in described if (decided := self._decided("reason", clip)).good}
            texts = [(name, decided.answer.text) for name, decided in passed.items()]
            repeated = quality.near_duplicates(texts, rule.words, rule.most_similar)
            for name, other in repeated.items():
                self.duplicates[self._question("reason", self.by_id[name], passed[name].attempt).key] = other
            open_clips = [self.by_id[name] for name in repeated]

    def _is_heard(self, clip: ClipFacts, listens: bool) -> bool:
        """Whether nothing more is to come of the tone: it is described, or not asked for, or there is no sound.

        Without an answer the sound is looked at, if the run `listens` at all.
        """
        if "tone" not in self.passes:
            return True
        if clip.sound is None:
            self.no_sound[clip.id] = "the row names no sound or clip"
            return True
        decided = self._decided("tone", clip)
        if decided.answer is not None and decided.broken is None:
            self.tones[clip.id] = " ".join(decided.answer.text.split())
        elif decided.lacks and listens and clip.id not in self.no_sound:
            self._sound(clip)
        return clip.id in self.tones or clip.id in self.no_sound

    def _sound(self, clip: ClipFacts) -> str | None:
        """The clip's sound for a question; None, and the reason under `no_sound`, where there is none."""
        try:
            return wav(clip.sound, self.config.tone.seconds)
        except InputError as error:
            self.no_sound[clip.id] = error.reason
            return None

    def _pass(self, kind: Pass, clips: list[ClipFacts], server: Server | None, concurrency: int) -> None:
        def again(question: Question, answer: Answer) -> Question | None:
            clip, attempt = self.by_id[question.about["id"]], question.about["attempt"]
            if self._broken(kind, clip, question.key, answer) is None or attempt == self.config.attempts:
                return None
            return self._question(kind, clip, attempt + 1)

        if server is not None:
            first = [self._question(kind, clip, 1) for clip in clips if clip.picture or kind == "tone"]
            ask(server, first, self.journal, concurrency=concurrency, then=again, desc=kind)

    def _texts(self, kind: Pass, clip: ClipFacts) -> dict[str, str]:
        fields = {"transcript": clip.transcript, "label": clip.label, "expression": clip.expression}
        if kind == "reason":
            tone = self.tones.get(clip.id)
            fields |= self.clues[clip.id] | {"heard": self.config.tone.heard.format_map({"tone": tone}) if tone else ""}
        chat = self.config.chat(kind)
        return {"system": chat.system.format_map(fields), "user": chat.user.format_map(fields)}

    def _question(self, kind: Pass, clip: ClipFacts, attempt: int) -> Question:
        texts, shown = self._texts(kind, clip), self.config.pictures.model_dump()
        params = self.config.chat(kind).params | {"seed": self.config.seed + attempt - 1}
        # Size, not pixels: a resumed run needs thousands of keys and should not decode thousands of clips for them.
        seen = [clip.media, clip.size, shown] if kind == "clues" else None
        if kind == "tone":
            seen = [clip.sound.name, clip.sound.stat().st_size if clip.sound.is_file() else None]
            seen.append(self.config.tone.seconds)
        key = fingerprint(kind, clip.id, self.models[kind], texts, params, seen)

        def with_pictures() -> list[dict] | None:
            try:
                urls = pictures(clip.picture, **shown)
            except InputError as error:
                self.no_picture[clip.id] = f"{clip.media}: {error.reason}"
                return None
            content: list[dict] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
            return _chat(texts["system"], [*content, {"type": "text", "text": texts["user"]}])

        def with_sound() -> list[dict] | None:
            if (sound := self._sound(clip)) is None:
                return None
            part = {"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}}
            return _chat(texts["system"], [part, {"type": "text", "text": texts["user"]}])

        plain = _chat(texts["system"], texts["user"])
        messages = {"clues": with_pictures, "tone": with_sound}.get(kind, plain)
        return Question(key, messages, params, {"id": clip.id, "pass": kind, "attempt": attempt})

    def _broken(self, kind: Pass, clip: ClipFacts, key: str, answer: Answer) -> tuple[str, str] | None:
        if key in self.duplicates:
            return "near_duplicate", f"like the reason of {self.duplicates[key]}"
        if key not in self._verdicts:
            prompt = "\n".join(self._texts(kind, clip).values())
            rules = self.config.quality
            self._verdicts[key] = quality.check(kind, answer.text, answer.finish, prompt, clip.label, rules)
        return self._verdicts[key]

    def _decided(self, kind: Pass, clip: ClipFacts) -> Decided:
        decided = Decided(None, 0, None, False)
        for attempt in range(1, self.config.attempts + 1):
            key = self._question(kind, clip, attempt).key
            if key not in self.journal.answers:
                return decided._replace(lacks=True)
            answer = self.journal.answers[key]
            decided = Decided(answer, attempt, self._broken(kind, clip, key, answer), False)
            if decided.broken is None:
                break
        return decided

    def broken_answers(self) -> Counter:
        """How many answers broke which rule, `<pass>.<rule>`, retried ones included."""
        counts: Counter = Counter()
        for clip in self.clips:
            for kind in self.passes:
                if (kind == "reason" and clip.id not in self.clues) or (kind == "tone" and not clip.sound):
                    continue
                for attempt in range(1, self.config.attempts + 1):
                    key = self._question(kind, clip, attempt).key
                    answer = self.journal.answers.get(key)
                    if answer is not None and (broken := self._broken(kind, clip, key, answer)):
                        counts[f"{kind}.{broken[0]}"] += 1
        return counts

    def record(self, clip: ClipFacts) -> dict:
        """The ERI record; with `rejected` {pass, rule, detail} when the clip is kept aside."""
        record: dict = {"id": clip.id, "reason": "", "clues": self.clues.get(clip.id), "label": clip.label}
        record |= {"models": dict(self.models), "attempts": {}}
        for kind in self.passes:
            if kind == "tone" and clip.id in self.no_sound:
                continue
            if kind == "clues" and (clip.picture is None or clip.id in self.no_picture):
                detail = self.no_picture.get(clip.id, "the row names no picture or clip")
                return record | {"rejected": {"pass": kind, "rule": "no_picture", "detail": detail}}
            decided = self._decided(kind, clip)
            if decided.answer is not None:
                record["attempts"][kind] = decided.attempt
            if kind != "clues" and decided.answer is not None and (kind == "reason" or decided.good):
                record[kind] = " ".join(decided.answer.text.split())
            if decided.lacks:
                return record | {"rejected": {"pass": kind, "rule": "unanswered", "detail": "ask with --resume"}}
            if decided.broken is not None:
                rejected = {"pass": kind, "rule": decided.broken[0], "detail": decided.broken[1]}
                return record | {
                    "rejected": rejected | ({"answer": decided.answer.text[:2000]} if kind != "reason" else {})
                }
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


def _server_totals(run: EriRun, servers: dict[Pass, Server | None]) -> dict[str, dict]:
    """What each server was asked, over all runs of the journal, with its cost in USD where its model has a price."""
    result = {}
    for kind, name in ((kind, SERVERS[kind]) for kind in run.passes):
        server, model, total = servers[kind], run.models[kind], run.journal.totals().get(SERVERS[kind], {})
        if total and (price := run.config.prices.get(model)):
            spent = total["tokens_in"] * price.input + total["tokens_out"] * price.output
            total["cost_usd"] = round(spent / 1e6, 4)
        result[name] = {"url": server and server.shown_url, "model": model, **total}
    return result


def generate(options: Options) -> int:
    """Ask for what the journal lacks and write all files; 1 when answers are still missing that were asked for."""
    started, out = time.monotonic(), options.out
    config = load(options.config)
    if options.tone_model and config.tone is None:
        raise InputError("has no prompt for the tone (tone, quality.words.tone)", options.config)
    clips = read_clips(options.rows, options.media_root, options.fer, config)
    if options.review:  # its mistakes are told before hours of asking
        known = {clip.id for clip in clips}
        for name, (_, _, number) in read_review(options.review).items():
            if name not in known:
                raise InputError(f"no row has the id {name}", options.review, number)
    if (out / "eri.jsonl").exists() and not (out / "journal.jsonl").exists():
        raise InputError("was not made here and would be lost: choose another --out", out / "eri.jsonl")
    servers = options.servers(config.timeout)
    for server in filter(None, servers.values()):
        check(server)
    with AnswerJournal(out / "journal.jsonl", options.resume) as journal:
        run = EriRun(clips, config, options.models, journal)
        run.ask(servers, options.concurrency)
    records = [run.record(clip) for clip in clips]
    waiting = Counter(r["rejected"]["pass"] for r in records if r.get("rejected", {}).get("rule") == "unanswered")
    if options.review:
        records = apply_review(records, options.review)
    seen = {clip.id: {"transcript": clip.transcript, "media": clip.media} for clip in clips}
    earlier_report = read_json(out / "report.json") if (out / "report.json").exists() else {}
    untouched = earlier_report.get("review_sheet", "") if isinstance(earlier_report, dict) else ""
    new_sheet = write_sheet(out / "review.csv", records, seen, untouched)
    report = write_results(out, records) | {
        "waiting_for_an_answer": dict(waiting),
        "answers_that_broke_a_rule": dict(sorted(run.broken_answers().items())),
        **({"without_sound": dict(sorted(Counter(run.no_sound.values()).items()))} if "tone" in run.passes else {}),
        "answers_of_earlier_runs": journal.loaded,
        "servers": _server_totals(run, servers),
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


def review_only(out: Path, review: Path) -> int:
    """Apply a review to the records of an earlier run, and write them and the report anew."""
    records = read_records([out / "eri.jsonl", out / "rejected.jsonl"])
    report = read_json(out / "report.json") if (out / "report.json").exists() else {}
    if not isinstance(report, dict):
        raise InputError("is not a report of data_prep.eri", out / "report.json")
    counts = write_results(out, apply_review(records, review))
    write_json(out / "report.json", report | counts)
    _show(counts)
    return 0


def _show(report: dict) -> None:
    print(f"{report['accepted']} of {report['clips']} clips accepted, {report['rejected']} kept aside")
    for title in ("rejected_by_rule", "answers_that_broke_a_rule", "reviewed"):
        if report.get(title):
            print(f"  {title.replace('_', ' ')}: " + ", ".join(f"{key} {n}" for key, n in report[title].items()))
    for reason, count in report.get("without_sound", {}).items():
        print(f"  no tone of {count} clips: {reason}")
    for name, server in report.get("servers", {}).items():
        failures = ", ".join(f"{kind} {n}" for kind, n in server.get("failures", {}).items()) or "no failures"
        cost = f", {server['cost_usd']} USD" if "cost_usd" in server else ""
        print(
            f"  {name} ({server['model']}): {server.get('requests', 0)} requests, {failures}, "
            f"{server.get('tokens_in', 0)} + {server.get('tokens_out', 0)} tokens{cost}"
        )


def main(argv: list[str] | None = None) -> int:
    """The command: with --rows ask, without apply a review."""
    options = parse(Options, __doc__, "python -m data_prep.eri", argv)
    options.check()
    return generate(options) if options.rows else review_only(options.out, options.review)
