"""How fast compute_result.py is, and how much memory it takes: a real process on made-up result rows.

python benchmarks/scoring.py [--rows 100000]
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EMOTIONS = ["Anger.", "Sadness.", "Surprise.", "Disgust.", "Joy.", "Neutral.", "Fear."]
SYSTEM = {"role": "system", "content": "You are an sentiment and emotion analysis expert."}


def rows(count: int, kinds: tuple[str, ...]):
    """Result rows as ms-swift 4 writes them, whole prompts included."""
    pick = random.Random(0).choice
    for number in range(count):
        kind = kinds[number % len(kinds)]
        query, media = (
            f"words {number} that somebody says in a clip\n<x> Which one?",
            {"images": [{"path": f"{number}.png"}]},
        )
        if kind == "mosei.msa":
            gold, response = pick(["Positive.", "Negative."]), pick(["Positive.", "Negative.", "positive"])
            kind += pick(["", "", ".zero"])
        elif kind == "meld.mer":
            gold, response = pick(EMOTIONS), pick(EMOTIONS)
            media = {"videos": [f"dia{number // 10}_utt{number % 10}.mp4"]}
        elif kind == "mosei.fer":
            gold, response = (
                pick(["cheeks raised", "nose wrinkled"]),
                pick(["cheeks raised; nose wrinkled", "cheeks raised"]),
            )
        elif kind == "mosei.eri":
            gold, response = f"The person is happy because of event {number % 997}.", "She looks happy since she won."
        else:
            dialogue, target = number // 12, number % 12 + 1
            lines = "\n".join(f"{i}_joy. Ross: line {i} of dialogue {dialogue}, a few words" for i in range(1, 13))
            query, media = f"Conversation:\n{lines}\nTarget:\n{target}", {"videos": [f"dia{dialogue}utt{target}.mp4"]}
            gold = ";".join(f"{target}_joy,{cause}" for cause in range(max(1, target - number % 3), target + 1))
            response = f"{target}_joy,{target}"
        messages = [SYSTEM, {"role": "user", "content": query}, {"role": "assistant", "content": response}]
        yield {"response": response, "labels": gold, "logprobs": None, "messages": messages, **media, "channel": kind}


def measure(folder: Path, name: str, count: int, kinds: tuple[str, ...], *options: str) -> None:
    """Print wall and CPU seconds and peak memory of one process, its start included."""
    path = folder / "result.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for row in rows(count, kinds):
            file.write(json.dumps(row) + "\n")
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, ROOT / "compute_result.py", path, "--json", folder / "scores.json", *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{name:<46}{seconds:7.2f} s{cpu:7.2f} s CPU{after.ru_maxrss / 1024:6.0f} MB (peak of all runs so far)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    count = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mixed = ("mosei.msa", "meld.mer", "mosei.fer", "ecf.ecpe")
        measure(folder, "4,659 msa rows, no bootstrap", 4659, ("mosei.msa",))
        measure(folder, "4,659 msa rows, 1,000 bootstrap draws", 4659, ("mosei.msa",), "--bootstrap", "1000")
        measure(folder, "4,659 ecpe rows, 1,000 draws by dialogue", 4659, ("ecf.ecpe",), "--bootstrap", "1000")
        measure(folder, f"{count:,} rows of msa, mer, fer and ecpe", count, mixed)
        measure(folder, f"{count // 20:,} eri rows (BLEU and ROUGE)", count // 20, ("mosei.eri",))
        measure(folder, f"{count:,} mixed rows, HTML report", count, mixed, "--report", str(folder / "report"))


if __name__ == "__main__":
    main()
