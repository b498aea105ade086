"""LLM judge: clue overlap and label overlap (1-10, EMER's scale) of free-text reasons, behind an OpenAI-compatible URL.

    python compute_result.py output/result.jsonl --judge http://127.0.0.1:8000/v1 --judge-model MODEL

Answers are journaled beside the result file (`<file>.judge.jsonl`), so a judged pair is never asked twice. The key is
read from EMOVERSE_JUDGE_API_KEY or OPENAI_API_KEY.
"""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter
from typing import Any

from pydantic import PositiveFloat, PositiveInt, field_validator

from swift_plugins.chat_client import AnswerJournal, Question, Server, api_key, ask, check, fingerprint
from swift_plugins.files import CONFIGS, Config, read_config
from swift_plugins.scoring.results import Channel

CONFIG = CONFIGS / "judge.yaml"
_SCORE = re.compile(r"(?:score ?[:=] ?)?(10|[1-9])(?: ?/ ?10)?[ .]*", re.IGNORECASE | re.ASCII)


class JudgeConfig(Config):
    """configs/judge.yaml: a figure per prompt; `timeout` in seconds for one request, `params` go to the server."""

    prompts: dict[str, str]
    params: dict[str, Any]
    concurrency: PositiveInt
    timeout: PositiveFloat

    @field_validator("prompts")
    @classmethod
    def _known_fields(cls, prompts: dict[str, str]) -> dict[str, str]:
        for name, prompt in prompts.items():
            used = {field for _, field, _, _ in Formatter().parse(prompt) if field is not None}
            if unknown := used - {"gold", "response"}:
                raise ValueError(f"{name}: no field {{{min(unknown)}}} here; there are gold, response")
        return prompts


def read_score(answer: str) -> int | None:
    """1-10 from "7", "Score: 7", "**Score:** 7/10"; None for anything else, which is counted as not judged."""
    match = _SCORE.fullmatch(" ".join(answer.replace("*", " ").split()))  # one blank at most: the pattern stays linear
    return int(match[1]) if match else None


def load(path: Path = CONFIG) -> JudgeConfig:
    """configs/judge.yaml or a replacement; `InputError` names the key or field that is wrong."""
    return read_config(path, JudgeConfig)


def judge(channel: Channel, url: str, model: str, journal_path: Path, config: JudgeConfig | None = None) -> dict:
    """The judge's block of one eri channel: each prompt's mean (1-10), n answers judged, not_judged, and who judged.

    An unparsed (empty) response is not shown to the judge: it gets 1, the lowest mark. Raises InputError when the
    server cannot be used.
    """
    config = config or load()
    server = Server("judge", url, model, key=api_key("judge"), timeout=config.timeout)
    check(server)
    pairs = [pair for pair in zip(channel.golds, channel.strict, strict=True) if pair[1] is not None]
    result = {
        "judge": model,
        "url": server.shown_url,
        "prompts": fingerprint(config.prompts, config.params)[:8],
        "scale": "1-10",
        "n": len(channel.golds),
    }
    with AnswerJournal(journal_path, resume=True) as journal:
        for name, prompt in config.prompts.items():
            questions = []
            for gold, response in pairs:
                text = prompt.format(gold=gold, response=response)
                questions.append(
                    Question(
                        key=fingerprint(name, model, text, config.params),
                        messages=[{"role": "user", "content": text}],
                        params=config.params,
                        about={"channel": channel.name, "prompt": name},
                    )
                )
            ask(server, questions, journal, concurrency=config.concurrency, desc=f"{channel.name} {name}")
            answers = [journal.answers.get(question.key) for question in questions]
            marks = [answer and read_score(answer.text) for answer in answers]
            given = [mark for mark in marks if mark] + [1] * (len(channel.golds) - len(pairs))
            result[name] = sum(given) / len(given) if given else None
            result[f"{name}_not_judged"] = sum(1 for mark in marks if not mark)
    return result
