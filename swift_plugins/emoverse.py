"""Everything that this project registers with ms-swift: the one file for `--external_plugins`.

    swift sft … --external_plugins swift_plugins/emoverse.py

ms-swift imports it by its path, also in data loader workers, so it puts the project on sys.path itself.
"""

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[1])
if ROOT not in sys.path:
    # At the end: a folder of the working directory must not be shadowed by one of ours.
    sys.path.append(ROOT)

from swift_plugins import backbones, dataset, internvl2, rewards, template  # noqa: E402

for module in (internvl2, template, backbones, dataset, rewards):
    module.register()
