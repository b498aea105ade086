"""Tasks and datasets of your own, from files outside this project: AMT_EXTENSIONS=mine.yaml[:more.py].

A YAML file declares a dataset (`swift_plugins.declared`), as those of configs/datasets/ do. A Python file is imported
once, by every command and inside ms-swift, and adds what it has to the registries:

    from data_prep.readers import READERS
    from swift_plugins.tasks import TASKS

    READERS["toy"] = toy                              # a module or object with `read`
    TASKS["irony"] = Irony()
    TASKS["mer"].labels["toy"] = ("Glad", "Gloomy")
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from swift_plugins import declared


def load() -> None:
    """Load configs/datasets/ and what AMT_EXTENSIONS names; a bad file ends the program in one line with status 2."""
    for path in sorted(declared.FOLDER.glob("*.yaml")):
        declared.add_known(path)
    for place, name in enumerate(filter(None, os.environ.get("AMT_EXTENSIONS", "").split(os.pathsep))):
        path = Path(name).resolve()
        if path.suffix in (".yaml", ".yml"):
            declared.add_known(path)
            continue
        module = f"amt_extension_{place}_{path.stem}"
        if module in sys.modules:
            continue
        spec = importlib.util.spec_from_file_location(module, path)
        if spec is None or spec.loader is None or not path.is_file():
            print(f"error: {name}: no such Python file (AMT_EXTENSIONS)", file=sys.stderr)
            sys.exit(2)  # registries are read while modules are imported, before any command could catch an error
        sys.modules[module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[module])
