r"""ERI data from served models: some describe what they see and hear of a clip, one infers why the person feels so.

    python -m data_prep.eri --rows mosei.mer.train.jsonl --media-root MEDIA --fer fer.jsonl --out DIR \
        --clue-url http://127.0.0.1:8001/v1 --clue-model M --reason-url http://127.0.0.1:8002/v1 --reason-model M \
        [--tone-url http://127.0.0.1:8003/v1 --tone-model M]
    python -m data_prep.eri --rows mafw.mer.train.jsonl mafw.mlmer.train.jsonl --media-root MEDIA --fer fer.jsonl \
        --out DIR --agent image=M --agent audio=M --agent reason=M --agent-url image=URL --agent-url audio=URL \
        --agent-url reason=URL
    python -m data_prep.eri --out DIR --review DIR/review.csv

The first asks (any OpenAI-compatible server; OPENAI_API_KEY, or EMOVERSE_CLUE_API_KEY, EMOVERSE_REASON_API_KEY and
EMOVERSE_TONE_API_KEY). With --tone-model a third model hears the clips that have sound (input_audio), and reasons draw
on the tone of the voice as well. The second asks the agents of the config's `agents`: each describes what it sees or
hears without knowing the label, and the last, `reason`, knows the labels and merges (keys: EMOVERSE_<NAME>_API_KEY);
docs/eri-agents.md tells more. The third applies a person's accept / reject / edit and asks nobody. DIR then holds
eri.jsonl for the AMT builder, rejected.jsonl (kept aside, with the rule that was broken), review.csv to be filled in,
report.json, and journal.jsonl, which --resume continues: killed at any moment, nothing that was answered is asked
again. A run asks only the servers whose URL it is given: one GPU can serve the models one after the other.
Prompts and rules: configs/eri.yaml.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from data_prep.eri import quality
from data_prep.eri.clips import LABELLED, ClipFacts, pictures, read_clips, wav
from data_prep.eri.config import CONFIG, EriConfig, Media, Pass, load
from data_prep.eri.review import apply_review, read_records, read_review, write_sheet
from swift_plugins.chat_client import Answer, AnswerJournal, Question, Server, api_key, ask, check, fingerprint
from swift_plugins.files import InputError, read_json, write_json, write_rows
from swift_plugins.options import option, parse


@dataclass(frozen=True)
class Options:
    """The command line."""

    out: Path = option(help="folder of the records, the report and the journal", metavar="DIR")
    rows: tuple[Path, ...] = option(
        (), help="AMT rows of <dataset>.mer channels; with --agent of any task whose answers are labels", metavar="FILE"
    )
    media_root: Path | None = option(None, help="folder that the rows' media paths are relative to", metavar="DIR")
    fer: Path | None = option(None, help="fer.jsonl: captions and peak frames by clip id", metavar="FILE")
    clue_url: str | None = option(None, help="server of the clues pass, ends in /v1", metavar="URL")
    clue_model: str | None = option(None, help="model name as that server lists it", metavar="M")
    reason_url: str | None = option(None, help="server of the reason pass, ends in /v1", metavar="URL")
    reason_model: str | None = option(None, help="model name as that server lists it", metavar="M")
    tone_url: str | None = option(None, help="server of the tone pass (it hears the clips), ends in /v1", metavar="URL")
    tone_model: str | None = option(None, help="model name as that server lists it; without it no tone", metavar="M")
    agent: tuple[str, ...] = option(
        (), action="append", help="instead: the model of one of the config's agents, once for each", metavar="NAME=M"
    )
    agent_url: tuple[str, ...] = option(
        (), action="append", help="server of an agent, ends in /v1, once for each that is asked", metavar="NAME=URL"
    )
    concurrency: int = option(16, help="requests at once (default 16)", metavar="N")
    resume: bool = option(False, help="go on with the journal in --out")
    review: Path | None = option(None, help="CSV or JSONL with accept, reject or edit per clip id", metavar="FILE")
    config: Path = option(CONFIG, help="prompts and rules (default configs/eri.yaml)", metavar="FILE")

    @property
    def models(self) -> dict[str, str]:
        """The model of each pass or agent."""
        if self.agent:
            return _named("--agent", self.agent)
        models = {"clues": self.clue_model or "", "reason": self.reason_model or ""}
        return models | ({"tone": self.tone_model} if self.tone_model else {})

    @property
    def urls(self) -> dict[str, str]:
        """The URL of each pass or agent that is asked in this run."""
        if self.agent:
            return _named("--agent-url", self.agent_url)
        urls = {"clues": self.clue_url, "tone": self.tone_url, "reason": self.reason_url}
        return {name: url for name, url in urls.items() if url}

    def passes(self, config: EriConfig) -> tuple[Pass, ...]:
        """The passes or agents that the config has, the merger last.

        `InputError` for one that is named here and not there, and for one without a model that no run can do without.
        """
        passes = config.passes(agents=bool(self.agent))
        if not self.agent:
            if self.tone_model and config.tone is None:
                raise InputError("has no prompt for the tone (tone, quality.words.tone)", self.config)
            return passes
        known = [kind.name for kind in passes]
        if not known:
            raise InputError("has no agents", self.config)
        for flag, given in (("--agent", self.models), ("--agent-url", self.urls)):
            if unknown := [name for name in given if name not in known]:
                raise InputError(f"{flag} {unknown[0]}: no such agent, but: {', '.join(known)}", self.config)
        for kind in passes:
            needed = kind.takes != "sound" or kind.name in self.urls
            if needed and kind.name not in self.models:
                raise InputError(f"--agent {kind.name}=MODEL is missing")
        return passes

    def servers(self, passes: tuple[Pass, ...], timeout: float) -> dict[str, Server | None]:
        """The server of each pass; None where this run does not make it."""
        urls, models = self.urls, self.models
        return {
            kind.name: Server(kind.server, url, models[kind.name], api_key(kind.server), timeout)
            if (url := urls.get(kind.name))
            else None
            for kind in passes
        }

    def check(self) -> None:
        """Raise `InputError` for options that do not go together."""
        pair = self.clue_model or self.tone_model or self.reason_model
        asks = self.clue_url or self.tone_url or self.reason_url
        if (self.agent or self.agent_url) and (pair or asks):
            raise InputError("--agent and --agent-url stand instead of --clue-…, --tone-… and --reason-…")
        if self.agent_url and not self.agent:
            raise InputError("--agent-url needs --agent NAME=MODEL")
        if self.agent:
            if not (self.rows and self.media_root and self.agent_url):
                raise InputError("--agent needs --rows, --media-root and an --agent-url")
        elif self.rows and not (asks and self.clue_model and self.reason_model and self.media_root):
            needs = "--media-root, --clue-model, --reason-model, and --clue-url or --reason-url or both"
            raise InputError(f"--rows needs {needs}")
        if self.tone_url and not self.tone_model:
            raise InputError("--tone-url needs --tone-model")
        if not self.rows and (asks or not self.review):
            raise InputError("give --rows to make reasons, or --review alone to apply one to an --out made before")
        if self.concurrency < 1:
            raise InputError(f"--concurrency {self.concurrency} is not a positive number")


def _named(flag: str, given: tuple[str, ...]) -> dict[str, str]:
    """NAME=VALUE options by name; `InputError` for one that is not of this form, or comes twice."""
    found: dict[str, str] = {}
    for one in given:
        name, _, value = one.partition("=")
        if not name or not value or "://" in name:  # a URL, which may hold a key, is not shown
            raise InputError(f"{flag} expects NAME=… such as image=…")
        if name in found:
            raise InputError(f"{flag} {name} is given twice")
        found[name] = value
    return found


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

    passes: those of the config, the merger last; those without a model in `models` are not asked, and the merger is
    told nothing of them. What is decided depends on the journal's answers and the order of the clips only, never on the
    order of arrival: attempt n of a clip is the same question in every run, and duplicates are settled in the order of
    the clips after everybody has answered.
    """

    def __init__(
        self,
        clips: list[ClipFacts],
        config: EriConfig,
        passes: tuple[Pass, ...],
        models: dict[str, str],
        journal: AnswerJournal,
    ):
        self.clips, self.config, self.models, self.journal = clips, config, models, journal
        self.by_id = {clip.id: clip for clip in clips}
        self.all_passes = passes
        self.passes = tuple(kind for kind in passes if kind.name in models)
        *self.agents, self.merger = self.passes
        self.accepted: dict[str, dict[str, dict[str, str]]] = {kind.name: {} for kind in passes}  # of each clip: parts
        self.duplicates: dict[str, str] = {}  # key of an answer → what it repeats
        self.missing: dict[Media, dict[str, str]] = {"pictures": {}, "sound": {}}  # of a clip: why there is none
        self._verdicts: dict[str, tuple[str, str] | None] = {}

    def ask(self, servers: Mapping[str, Server | None], concurrency: int) -> None:
        """Ask what the journal does not answer yet, of the passes that have a server."""
        for kind in self.agents:
            there = [clip for clip in self.clips if (clip.sound if kind.takes == "sound" else clip.picture)]
            self._pass(kind, there, servers[kind.name], concurrency)
        described = [clip for clip in self.clips if self._is_described(clip, servers)]
        rule = self.config.quality.near_duplicate
        open_clips, merger = described, self.merger
        while open_clips:
            self._pass(merger, open_clips, servers[merger.name], concurrency)
            passed = {clip.id: decided for clip in described if (decided := self._decided(merger, clip)).good}
            texts = [(name, decided.answer.text) for name, decided in passed.items()]
            repeated = quality.near_duplicates(texts, rule.words, rule.most_similar)
            for name, other in repeated.items():
                self.duplicates[self._question(merger, self.by_id[name], passed[name].attempt).key] = other
            open_clips = [self.by_id[name] for name in repeated]

    def _is_described(self, clip: ClipFacts, servers: Mapping[str, Server | None]) -> bool:
        """Whether nothing more is to come but the merger's answer: each agent has a good one, or there is no sound.

        Without an answer the sound is looked at, if the run asks who would hear it, or the merger.
        """
        for kind in self.agents:
            if kind.takes == "sound" and clip.sound is None:
                self.missing["sound"][clip.id] = "the row names no sound or clip"
                continue
            decided = self._decided(kind, clip)
            if decided.good:
                self.accepted[kind.name][clip.id] = _parts(kind, decided.answer.text)
                continue
            listens = kind.takes == "sound" and (servers[kind.name] or servers[self.merger.name])
            if decided.lacks and listens and clip.id not in self.missing["sound"]:
                self._sound(kind, clip)
            if kind.takes != "sound" or clip.id not in self.missing["sound"]:
                return False
        return True

    def _sound(self, kind: Pass, clip: ClipFacts) -> str | None:
        """The clip's sound for a question; None, and the reason under `missing`, where there is none."""
        try:
            return wav(clip.sound, kind.seconds)
        except InputError as error:
            self.missing["sound"][clip.id] = error.reason
            return None

    def _pass(self, kind: Pass, clips: list[ClipFacts], server: Server | None, concurrency: int) -> None:
        def again(question: Question, answer: Answer) -> Question | None:
            clip, attempt = self.by_id[question.about["id"]], question.about["attempt"]
            if self._broken(kind, clip, question.key, answer) is None or attempt == self.config.attempts:
                return None
            return self._question(kind, clip, attempt + 1)

        if server is not None:
            first = [self._question(kind, clip, 1) for clip in clips]
            ask(server, first, self.journal, concurrency=concurrency, then=again, desc=kind.name)

    def _texts(self, kind: Pass, clip: ClipFacts) -> dict[str, str]:
        fields = clip.said
        for agent in self.all_passes[:-1] if kind is self.merger else ():
            parts = self.accepted[agent.name].get(clip.id)
            if agent.field:
                fields[agent.field] = agent.told.format_map(parts) if parts else ""
            else:
                fields |= parts or {}
        return {"system": kind.chat.system.format_map(fields), "user": kind.chat.user.format_map(fields)}

    def _question(self, kind: Pass, clip: ClipFacts, attempt: int) -> Question:
        texts, shown = self._texts(kind, clip), self.config.pictures.model_dump()
        params = kind.chat.params | {"seed": self.config.seed + attempt - 1}
        # Size, not pixels: a resumed run needs thousands of keys and should not decode thousands of clips for them.
        seen: list | None = None
        if kind.takes == "pictures":
            seen = [clip.media, clip.size, shown]
        elif kind.takes == "sound":
            size = clip.sound.stat().st_size if clip.sound.is_file() else None
            seen = [clip.sound.name, size, kind.seconds]
        key = fingerprint(kind.name, clip.id, self.models[kind.name], texts, params, seen)

        def with_pictures() -> list[dict] | None:
            try:
                urls = pictures(clip.picture, **shown)
            except InputError as error:
                self.missing["pictures"][clip.id] = f"{clip.media}: {error.reason}"
                return None
            content: list[dict] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
            return _chat(texts["system"], [*content, {"type": "text", "text": texts["user"]}])

        def with_sound() -> list[dict] | None:
            if (sound := self._sound(kind, clip)) is None:
                return None
            part = {"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}}
            return _chat(texts["system"], [part, {"type": "text", "text": texts["user"]}])

        plain = _chat(texts["system"], texts["user"])
        messages = {"pictures": with_pictures, "sound": with_sound}.get(kind.takes or "", plain)
        return Question(key, messages, params, {"id": clip.id, "pass": kind.name, "attempt": attempt})

    def _broken(self, kind: Pass, clip: ClipFacts, key: str, answer: Answer) -> tuple[str, str] | None:
        if key in self.duplicates:
            return "near_duplicate", f"like the reason of {self.duplicates[key]}"
        if key not in self._verdicts:
            prompt = "\n".join(self._texts(kind, clip).values())
            labels, rules = clip.labels if kind.knows_label else {}, self.config.quality
            self._verdicts[key] = quality.check(kind.name, answer.text, answer.finish, prompt, labels, rules)
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
        seen = [self.accepted[kind.name] for kind in self.agents if kind.takes == "pictures"]
        for clip in self.clips:
            for kind in self.passes:
                if kind is self.merger and not all(clip.id in accepted for accepted in seen):
                    continue
                if kind.takes == "sound" and not clip.sound:
                    continue
                for attempt in range(1, self.config.attempts + 1):
                    key = self._question(kind, clip, attempt).key
                    answer = self.journal.answers.get(key)
                    if answer is not None and (broken := self._broken(kind, clip, key, answer)):
                        counts[f"{kind.name}.{broken[0]}"] += 1
        return counts

    def record(self, clip: ClipFacts) -> dict:
        """The ERI record; with `rejected` {pass, rule, detail} when the clip is kept aside."""
        made = {kind.name: self.accepted[kind.name].get(clip.id) for kind in self.agents}
        tone = made.pop("tone", None) or {}
        clues = {part: text for parts in made.values() for part, text in (parts or {}).items()}
        record: dict = {"id": clip.id, "reason": "", "clues": clues or None, "label": clip.label}
        record |= {"models": dict(self.models), "attempts": {}}
        for kind in self.passes:
            name = kind.name
            if kind.takes == "sound" and clip.id in self.missing["sound"]:
                continue
            if kind.takes == "pictures" and (clip.picture is None or clip.id in self.missing["pictures"]):
                detail = self.missing["pictures"].get(clip.id, "the row names no picture or clip")
                return record | {"rejected": {"pass": name, "rule": "no_picture", "detail": detail}}
            decided = self._decided(kind, clip)
            if decided.answer is not None:
                record["attempts"][name] = decided.attempt
            if name == "tone":
                record |= tone
            if kind is self.merger and decided.answer is not None:
                record["reason"] = " ".join(decided.answer.text.split())
            if decided.lacks:
                return record | {"rejected": {"pass": name, "rule": "unanswered", "detail": "ask with --resume"}}
            if decided.broken is not None:
                rejected = {"pass": name, "rule": decided.broken[0], "detail": decided.broken[1]}
                answer = {} if kind is self.merger else {"answer": decided.answer.text[:2000]}
                return record | {"rejected": rejected | answer}
        return record


def _parts(kind: Pass, text: str) -> dict[str, str]:
    """An accepted answer as a record holds it: by the name of its agent, or the two lines of the clues."""
    return {kind.name: " ".join(text.split())} if kind.field else quality.parse_clues(text)


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


def _server_totals(run: EriRun, servers: Mapping[str, Server | None]) -> dict[str, dict]:
    """What each server was asked, over all runs of the journal, with its cost in USD where its model has a price."""
    result = {}
    for kind in run.passes:
        server, model, total = servers[kind.name], run.models[kind.name], run.journal.totals().get(kind.server, {})
        if total and (price := run.config.prices.get(model)):
            spent = total["tokens_in"] * price.input + total["tokens_out"] * price.output
            total["cost_usd"] = round(spent / 1e6, 4)
        result[kind.server] = {"url": server and server.shown_url, "model": model, **total}
    return result


def generate(options: Options) -> int:
    """Ask for what the journal lacks and write all files; 1 when answers are still missing that were asked for."""
    started, out = time.monotonic(), options.out
    config = load(options.config)
    passes = options.passes(config)
    tasks = tuple(LABELLED) if options.agent else ("mer",)
    clips = read_clips(options.rows, options.media_root, options.fer, config, tasks)
    if options.review:  # its mistakes are told before hours of asking
        known = {clip.id for clip in clips}
        for name, (_, _, number) in read_review(options.review).items():
            if name not in known:
                raise InputError(f"no row has the id {name}", options.review, number)
    if (out / "eri.jsonl").exists() and not (out / "journal.jsonl").exists():
        raise InputError("was not made here and would be lost: choose another --out", out / "eri.jsonl")
    servers = options.servers(passes, config.timeout)
    for server in filter(None, servers.values()):
        check(server)
    with AnswerJournal(out / "journal.jsonl", options.resume) as journal:
        run = EriRun(clips, config, passes, options.models, journal)
        run.ask(servers, options.concurrency)
    records = [run.record(clip) for clip in clips]
    waiting = Counter(r["rejected"]["pass"] for r in records if r.get("rejected", {}).get("rule") == "unanswered")
    if options.review:
        records = apply_review(records, options.review)
    seen = {clip.id: {"transcript": clip.transcript, "media": clip.media} for clip in clips}
    earlier_report = read_json(out / "report.json") if (out / "report.json").exists() else {}
    untouched = earlier_report.get("review_sheet", "") if isinstance(earlier_report, dict) else ""
    new_sheet = write_sheet(out / "review.csv", records, seen, untouched)
    hears, without_sound = any(kind.takes == "sound" for kind in run.passes), Counter(run.missing["sound"].values())
    report = write_results(out, records) | {
        "waiting_for_an_answer": dict(waiting),
        "answers_that_broke_a_rule": dict(sorted(run.broken_answers().items())),
        **({"without_sound": dict(sorted(without_sound.items()))} if hears else {}),
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
        print(f"  no sound of {count} clips: {reason}")
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
