"""Make the demo's base model: a small InternVL2 (Phi-3 kind) in the original layout, pretrained on drawn pictures.

    python -m data_prep.demo.checkpoint --out configs/demo/checkpoint [--seed N] [--steps N]

The shipped files come out again bit for bit, on the processors that they were made on (x86 with AVX-512; 5,800 steps,
20 minutes on two idle cores). Another kind of processor rounds otherwise and gives other weights; how far the demo's
scores are then from the README's was not measured.

Pretraining gives LoRA something to adapt, as a real base model would: the ViT learns to read Action Units off faces,
the language model to copy, to look things up in a numbered conversation and to tell moods apart; last, it is asked in
other words for what the AMT tasks ask for (feelings, for or against, movements of a face, what brought a feeling
about). It sees no AMT prompt and no clip or dialogue of the synthetic datasets: its own come from other seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from swift_plugins.files import run_cli
from swift_plugins.options import option, parse


@dataclass(frozen=True)
class Options:
    """What a user may choose."""

    out: Path = option(help="a new folder")
    seed: int = option(0, help="of weights and examples (0)", metavar="N")
    steps: int = option(5800, help="training steps; 0 gives random weights (5800)", metavar="N")
    untaught: bool = option(False, help="without the questions of the tasks: the base of configs/ablation-demo")


def main() -> int:
    """Make the checkpoint."""
    options = parse(Options, __doc__, prog="python -m data_prep.demo.checkpoint")
    from data_prep.demo.base_model import make  # torch takes seconds to import: not for --help

    make(options.out, options.seed, options.steps, options.untaught)
    return 0


if __name__ == "__main__":
    run_cli(main)
