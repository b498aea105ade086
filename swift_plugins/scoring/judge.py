"""LLM judge: clue overlap and label overlap (1-10, as EMER counts them) of free-text reasons, by any OpenAI-compatible
server.

    python compute_result.py output/result.jsonl --judge http://127.0.0.1:8000/v1 --judge-model MODEL

Clue overlap is one question about the two texts. Label overlap is three: which emotions each text names, then how far
the two lists agree. Answers are journaled beside the result file (`<file>.judge.jsonl`), so nothing is asked twice. The
key is read from EMOVERSE_JUDGE_API_KEY or OPENAI_API_KEY.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from string import Formatter
from typing import Any

from pydantic import PositiveFloat, PositiveInt, model_validator

from swift_plugins.chat_client import Answer, AnswerJournal, Question, Server, api_key, ask, check, fingerprint
from swift_plugins.files import CONFIGS, Config, read_config
from swift_plugins.scoring.results import Channel
from swift_plugins.tasks.task import without_reasoning

CONFIG = CONFIGS / "judge.yaml"
NOTE = (
    "the judge of EMER's published figures, gpt-3.5-turbo-16k-0613, is no longer served: marks compare only with marks "
    "by the same judge and the same wording"
)
_SCORE = re.compile(r"(?:score ?[:=] ?)?(10|[1-9])(?: ?/ ?10)?[ .]*", re.IGNORECASE | re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,9}(?:\.[0-9]{1,9})?")


class Wording(Config):
    """The judge's three questions: two texts, one text, two lists of emotions."""

    clue_overlap: str
    emotions: str
    label_overlap: str

    @model_validator(mode="after")
    def _known_fields(self) -> Wording:
        for name, prompt in self:
            known = {"text"} if name == "emotions" else {"gold", "response"}
            used = {field for _, field, _, _ in Formatter().parse(prompt) if field is not None}
            if unknown := used - known:
                raise ValueError(f"{name}: no field {{{min(unknown)}}} here; there are {', '.join(sorted(known))}")
        return self


class JudgeConfig(Config):
    """configs/judge.yaml: the wording; `timeout` in seconds for one request, `params` go to the server."""

    prompts: Wording
    params: dict[str, Any]
    concurrency: PositiveInt
    timeout: PositiveFloat


def read_score(answer: str) -> int | None:
    """1-10 from "7", "Score: 7", "**Score:** 7/10"; None for anything else, which is counted as not judged."""
    text = without_reasoning(answer).replace("*", " ")
    match = _SCORE.fullmatch(" ".join(text.split()))  # one blank at most: the pattern stays linear
    return int(match[1]) if match else None


def first_number(answer: str) -> float | None:
    """The first number of an answer, as EMER is scored, where it is from 1 to 10: 1 of "On a scale of 1 to 10: 7"."""
    match = _NUMBER.search(without_reasoning(answer))
    return float(match[0]) if match and 1 <= float(match[0]) <= 10 else None


def load(path: Path = CONFIG) -> JudgeConfig:
    """configs/judge.yaml or a replacement; `InputError` names the key or field that is wrong."""
    return read_config(path, JudgeConfig)


def judge(channel: Channel, url: str, model: str, journal_path: Path, config: JudgeConfig | None = None) -> dict:
    """The judge's block of one eri channel: who judged, and `_marks` of clue_overlap and label_overlap.

    An unparsed (empty) response is not shown to the judge: it gets 1, the lowest mark; `empty` counts those. Raises
    InputError when the server cannot be used.
    """
    config = config or load()
    server = Server("judge", url, model, key=api_key("judge"), timeout=config.timeout)
    check(server)
    pairs = [pair for pair in zip(channel.golds, channel.strict, strict=True) if pair[1] is not None]
    empty = len(channel.golds) - len(pairs)
    result: dict[str, Any] = {
        "judge": model,
        "url": server.shown_url,
        "prompts": fingerprint(config.prompts.model_dump(), config.params)[:8],
        "scale": "1-10",
        "n": len(channel.golds),
        "empty": empty,
        "note": NOTE,
    }
    with AnswerJournal(journal_path, resume=True) as journal:

        def answers(name: str, fields: Sequence[dict[str, str]]) -> list[Answer | None]:
            """One answer per entry of `fields`, None where the server gave none."""
            questions = []
            for values in fields:
                text = getattr(config.prompts, name).format(**values)
                questions.append(
                    Question(
                        key=fingerprint(name, model, text, config.params),
                        messages=[{"role": "user", "content": text}],
                        params=config.params,
                        about={"channel": channel.name, "prompt": name},
                    )
                )
            ask(server, questions, journal, concurrency=config.concurrency, desc=f"{channel.name} {name}")
            return [journal.answers.get(question.key) for question in questions]

        clues = answers("clue_overlap", [{"gold": gold, "response": response} for gold, response in pairs])
        result |= _marks("clue_overlap", clues, Counter(), empty)
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        named = dict(zip(texts, map(_emotions, answers("emotions", [{"text": text} for text in texts])), strict=True))
        lists = [(named[gold], named[response]) for gold, response in pairs]
        both = [{"gold": gold, "response": response} for gold, response in lists if gold and response]
        lost = Counter({"no list of emotions": len(lists) - len(both)})
        result |= _marks("label_overlap", answers("label_overlap", both), lost, empty)
    return result


def _emotions(answer: Answer | None) -> str:
    """The emotion words of a text as the judge lists them, in one line; "" for no answer, an empty or a cut-off one."""
    return "" if answer is None or answer.finish == "length" else " ".join(without_reasoning(answer.text).split())


def _marks(name: str, answers: Sequence[Answer | None], lost: Counter, empty: int) -> dict[str, Any]:
    """The mean of `read_score` under `name` (None without a mark), that of `first_number`, and how many answers have no
    mark, each with 1 for every empty response. lost: pairs that the judge could not be asked about, by reason."""
    strict = [None if answer is None else read_score(answer.text) for answer in answers]
    first = [None if answer is None else first_number(answer.text) for answer in answers]
    reasons = +lost + Counter(
        "no answer" if answer is None else "no mark" for answer, mark in zip(answers, strict, strict=True) if not mark
    )

    def mean(marks: Sequence[float | None]) -> float | None:
        given = [mark for mark in marks if mark] + [1] * empty
        return sum(given) / len(given) if given else None

    return {
        name: mean(strict),
        f"{name}_not_judged": reasons.total(),
        f"{name}_reasons": dict(reasons),
        f"{name}_first_number": mean(first),
        f"{name}_without_number": lost.total() + sum(mark is None for mark in first),
    }
