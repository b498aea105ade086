"""The learning rate of Emotion-LLaMA's stage 1, as the original has it and as transformers' nearest schedule does.

    python -m benchmarks.el_schedule          # prints how near they are, writes docs/emotion-llama-lr.png

The original: linear from 1e-6 to 1e-5 over 1,000 steps; then a cosine to 1e-6 that counts from step 0 of 30,000.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import yaml
from transformers import get_scheduler

from swift_plugins.files import CONFIGS, run_cli

PAGE = Path(__file__).resolve().parents[1] / "docs" / "emotion-llama-lr.png"
START, PEAK, LEAST, WARMUP, STEPS = 1e-6, 1e-5, 1e-6, 1000, 30_000


def original(step: int) -> float:
    """The learning rate at a step, in the original."""
    if step < WARMUP:
        return START + (PEAK - START) * step / WARMUP
    return LEAST + (PEAK - LEAST) * 0.5 * (1 + math.cos(math.pi * step / STEPS))


def ours() -> list[float]:
    """The learning rates of configs/emotion-llama/stage1.yaml."""
    config = yaml.safe_load((CONFIGS / "emotion-llama" / "stage1.yaml").read_text(encoding="utf-8"))
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=config["learning_rate"])
    schedule = get_scheduler(
        config["lr_scheduler_type"],
        optimizer,
        config["warmup_steps"],
        config["max_steps"],
        yaml.safe_load(config["lr_scheduler_kwargs"]),
    )
    rates = []
    for _ in range(config["max_steps"]):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return rates


def main() -> int:
    """Print the largest difference, draw both."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    theirs, rates = [original(step) for step in range(STEPS)], ours()
    apart = [abs(one - other) for one, other in zip(theirs, rates, strict=True)]
    print(
        f"largest difference {max(apart):.3g} at step {apart.index(max(apart)):,}, {max(apart) / PEAK:.2%} of the peak"
    )
    figure, axes = pyplot.subplots(figsize=(7, 3))
    axes.plot(theirs, label="original")
    axes.plot(rates, "--", label="cosine_warmup_with_min_lr")
    axes.set(xlabel="step", ylabel="learning rate")
    axes.legend()
    figure.savefig(PAGE, dpi=110, bbox_inches="tight")
    return 0


if __name__ == "__main__":
    run_cli(main)
