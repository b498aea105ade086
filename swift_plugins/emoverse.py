"""Everything that this project registers with ms-swift: the one file for `--external_plugins`.

    swift sft … --external_plugins swift_plugins/emoverse.py

ms-swift imports it by its path, also in data loader workers, so it puts the project on sys.path itself.
"""

import os
import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[1])
if ROOT not in sys.path:
    # At the end: a folder of the working directory must not be shadowed by one of ours.
    sys.path.append(ROOT)

import torch  # noqa: E402

if not torch.accelerator.is_available():
    if "LOCAL_RANK" in os.environ:
        # Without one, accelerate takes several processes for several runs of one process unless it is told: gradients
        # are never synchronised, and every process trains alone on its part of the rows.
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")
    if "OMP_NUM_THREADS" not in os.environ:
        # One thread a core: two that share one, or a core with another program, wait for each other at every step.
        torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))

from swift_plugins import (  # noqa: E402
    answering,
    backbones,
    chat_page,
    dataset,
    packing,
    rewards,
    runs,
    shares,
    template,
)
from swift_plugins.emotion_llama import register as emotion_llama  # noqa: E402
from swift_plugins.internvl2 import register as internvl2  # noqa: E402

if not runs.registered():  # ms-swift imports this file by its path, our programs and tests as a module
    for module in (
        runs,  # first: it ends what the others refuse in one line
        internvl2,
        template,
        packing,
        shares,
        answering,
        backbones,
        emotion_llama,
        dataset,
        rewards,
        chat_page,
    ):
        module.register()
    if "evalscope" in sys.modules:  # `swift eval` has imported it
        from swift_plugins import eval_backend

        eval_backend.register()
