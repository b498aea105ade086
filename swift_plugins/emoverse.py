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

if "LOCAL_RANK" in os.environ:
    import torch

    if not torch.accelerator.is_available():
        # Without one, accelerate takes several processes for several runs of one process unless it is told: gradients
        # are never synchronised, and every process trains alone on its part of the rows.
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")

from swift_plugins import backbones, chat_page, dataset, rewards, template  # noqa: E402
from swift_plugins.files import InputError  # noqa: E402
from swift_plugins.internvl2 import register as internvl2  # noqa: E402

for module in (internvl2, template, backbones, dataset, rewards, chat_page):
    module.register()

_other_errors = sys.excepthook


def _in_one_line(kind, error, trace) -> None:
    """Bad input that shows in the middle of a run (a clip that cannot be decoded) ends it as everywhere else."""
    if not issubclass(kind, InputError):
        _other_errors(kind, error, trace)
        return
    # The error of a data loader worker carries that process's whole traceback as its message.
    line = str(error).rpartition(f"{InputError.__module__}.{InputError.__name__}: ")[2]
    sys.stdout.flush()
    print(f"\nerror: {line}", file=sys.stderr, flush=True)
    os._exit(2)  # after a hook the interpreter would exit with status 1


sys.excepthook = _in_one_line
