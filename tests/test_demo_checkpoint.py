"""The demo's base model: small, in the original layout, loadable without remote code, made by the committed script."""

import subprocess
import sys
from pathlib import Path

import torch

from data_prep.demo import checkpoint as demo_checkpoint
from swift_plugins.internvl2 import IMAGE_TOKEN, load_internvl2, load_tokenizer, read_config

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "configs" / "demo" / "checkpoint"


def run(*arguments):
    command = [sys.executable, "-m", "data_prep.demo.checkpoint", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_shipped_checkpoint_is_small_and_whole():
    files = [path for path in SHIPPED.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5_000_000
    assert not {path.suffix for path in files} - {".json", ".safetensors"}
    model, tokenizer = load_internvl2(SHIPPED), load_tokenizer(SHIPPED)
    assert all(torch.isfinite(weight).all() for weight in model.parameters())
    assert model.config.image_seq_length == demo_checkpoint.TOKENS
    for token in demo_checkpoint.CHAT:
        assert tokenizer(token).input_ids == [tokenizer.convert_tokens_to_ids(token)]
    for text in ("5_surprise,2;5_surprise,5", "naïve café 漢字 \U0001f600", "Ana: Wait!\n2_joy."):
        assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_the_script_makes_that_architecture_and_the_same_weights_for_a_seed(tmp_path):
    for name in ("one", "two"):
        done = run("--out", tmp_path / name, "--steps", 20)
        assert done.returncode == 0, done.stderr
    assert read_config(tmp_path / "one") == read_config(SHIPPED)
    for file in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    image_token = load_tokenizer(tmp_path / "one").convert_tokens_to_ids(IMAGE_TOKEN)
    assert load_internvl2(tmp_path / "one").config.image_token_id == image_token


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "x").write_text("")
    done = run("--out", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
