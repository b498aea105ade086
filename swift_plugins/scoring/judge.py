"""LLM judge: clue overlap and label overlap (1-10, EMER's scale) of free-text reasons, behind an OpenAI-compatible URL.

    python compute_result.py output/result.jsonl --judge http://127.0.0.1:8000/v1 --judge-model MODEL

Answers are journaled beside the result file (`<file>.judge.jsonl`), so a judged pair is never asked twice. The key is
read from EMOVERSE_JUDGE_API_KEY or OPENAI_API_KEY.
"""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import yaml

from swift_plugins.chat_client import Journal, Question, Server, api_key, ask, check, fingerprint
from swift_plugins.files import CONFIGS, InputError
from swift_plugins.scoring.results import Channel

CONFIG = CONFIGS / "judge.yaml"
_SCORE = re.compile(r"\s*(?:\**score\**\s*[:=]\s*\**\s*)?(10|[1-9])(?:\s*/\s*10)?\s*[.*]*\s*", re.IGNORECASE | re.ASCII)


def read_score(answer: str) -> int | None:
    """1-10 from "7", "Score: 7", "**Score:** 7/10"; None for anything else, which is counted as not judged."""
    match = _SCORE.fullmatch(answer)
    return int(match[1]) if match else None


def load(path: Path = CONFIG) -> dict:
    """configs/judge.yaml; InputError names an unknown field in a prompt."""
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, prompt in config["prompts"].items():
        unknown = {field for _, field, _, _ in Formatter().parse(prompt) if field is not None} - {"gold", "response"}
        if unknown:
            raise InputError(f"prompts.{name}: no field {{{sorted(unknown)[0]}}} here; there are gold, response", path)
    return config


def judge(channel: Channel, url: str, model: str, journal_path: Path, config: dict | None = None) -> dict:
    """The judge's block of one eri channel: each prompt's mean (1-10), n answers judged, not_judged, and who judged.

    An unparsed (empty) response is not shown to the judge: it gets 1, the lowest mark. Raises InputError when the
    server cannot be used.
    """
    config = config or load()
    server = Server("judge", url, model, key=api_key("judge"), timeout=config["timeout"])
    check(server)
    pairs = [pair for pair in zip(channel.golds, channel.strict, strict=True) if pair[1] is not None]
    result = {
        "judge": model,
        "url": server.shown_url,
        "prompts": fingerprint(config["prompts"], config["params"])[:8],
        "scale": "1-10",
        "n": len(channel.golds),
    }
    with Journal(journal_path, resume=True) as journal:
        for name, prompt in config["prompts"].items():
            questions = []
            for gold, response in pairs:
                text = prompt.format(gold=gold, response=response)
                questions.append(
                    Question(
                        key=fingerprint(name, model, text, config["params"]),
                        messages=[{"role": "user", "content": text}],
                        params=config["params"],
                        about={"channel": channel.name, "prompt": name},
                    )
                )
            ask(server, questions, journal, concurrency=config["concurrency"], desc=f"{channel.name} {name}")
            answers = [journal.answers.get(question.key) for question in questions]
            marks = [answer and read_score(answer.text) for answer in answers]
            given = [mark for mark in marks if mark] + [1] * (len(channel.golds) - len(pairs))
            result[name] = sum(given) / len(given) if given else None
            result[f"{name}_not_judged"] = sum(1 for mark in marks if not mark)
    return result
