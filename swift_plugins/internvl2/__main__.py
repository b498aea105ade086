"""Complete an exported folder with the preprocessing of its tiles (shell/export.sh runs this).

python -m swift_plugins.internvl2 FOLDER
"""

import sys
from pathlib import Path

from swift_plugins.files import InputError, run_cli, write_json
from swift_plugins.internvl2.config import preprocessor_config, read_config, tile_side
from swift_plugins.internvl2.weights import native_config


def main() -> None:
    """Write preprocessor_config.json beside the exported weights."""
    if len(sys.argv) != 2:
        raise InputError("usage: python -m swift_plugins.internvl2 FOLDER")
    folder = Path(sys.argv[1])
    if read_config(folder).get("model_type") == "internvl":
        write_json(folder / "preprocessor_config.json", preprocessor_config(tile_side(native_config(folder))))


if __name__ == "__main__":
    run_cli(main)
