"""EmoVerse on ms-swift. Every program imports this first, so what is not installed is said before anything loads."""

import sys
from importlib.util import find_spec

TRAINING = ("torch", "transformers", "peft", "swift")


def need(*packages: str) -> None:
    """End the program, with status 2 and one line, where packages are not installed."""
    if missing := [name for name in packages if find_spec(name) is None]:
        how = "`make install` and `source .venv/bin/activate`, or pip install -r requirements.txt"
        print(f"error: {sys.executable} has no {', '.join(missing)}: {how}", file=sys.stderr)
        sys.exit(2)


need("av", "jinja2", "jsonlines", "numpy", "openai", "pandas", "PIL", "pydantic", "rapidfuzz", "tqdm", "yaml")
