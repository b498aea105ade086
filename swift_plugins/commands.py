"""The command `emoverse` of an installed package: the programs of this project under one name, from any folder.

emoverse build-amt --split train --out amt --meld MELD.Raw      any program; its own --help says more
emoverse path plugin                                            where the plugin lies: also configs, shell

swift sft "$(emoverse path configs)/demo/stage1.yaml" --external_plugins "$(emoverse path plugin)" …
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

from swift_plugins.files import CONFIGS, PLUGIN

MODULES = {
    "build-amt": "data_prep.build_amt",
    "fer": "data_prep.fer",
    "eri": "data_prep.eri",
    "merr": "data_prep.merr",
    "doctor": "data_prep.doctor",
    "features": "data_prep.features",
    "peak-frame": "data_prep.peak_frame",
    "mixture": "swift_plugins.mixture",
    "score": "compute_result",
    "new-dataset": "data_prep.new_dataset",
    "ask": "ask",
    "app": "app",
}
SCRIPTS = {
    "first-stage": "first_stage.sh",
    "second-stage": "second_stage.sh",
    "test": "test.sh",
    "export": "export.sh",
    "serve": "serve.sh",
    "demo": "demo.sh",
}
PATHS = {"plugin": PLUGIN, "configs": CONFIGS, "shell": CONFIGS.parent / "shell"}


def main() -> int:
    """Run what the first argument names, with the others; 2 and a line of what there is for anything else."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(f"{__doc__}\nprograms: {', '.join(MODULES)}\nscripts:  {', '.join(SCRIPTS)}")
        return 0
    if name == "path" and len(rest) == 1 and rest[0] in PATHS:
        print(PATHS[rest[0]])
        return 0
    if name in MODULES:
        sys.argv[1:] = rest
        runpy.run_module(MODULES[name], run_name="__main__", alter_sys=True)
        return 0
    if name in SCRIPTS:
        # The scripts call python and swift: those of this environment, whether or not it is activated.
        environment = os.environ | {"VIRTUAL_ENV": sys.prefix}
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        os.execvpe("bash", ["bash", str(PATHS["shell"] / SCRIPTS[name]), *rest], environment)
    known = [*MODULES, *SCRIPTS, *(f"path {place}" for place in PATHS)]
    print(f"error: emoverse {' '.join(sys.argv[1:])}: expected one of {', '.join(known)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
