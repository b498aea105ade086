"""The demo's base model: small, in the original layout, loadable without remote code, made by the committed script."""

import hashlib
import random
from pathlib import Path

import pytest
import torch

from data_prep.demo.base_model import CHAT, CONFIG, TOKENS, make, tokenizer_of
from data_prep.demo.pretraining import MIXES, MOODS, UNTAUGHT, WORDING, PretrainingTasks
from swift_plugins.files import InputError, read_json
from swift_plugins.internvl2 import load_internvl2, load_tokenizer

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
SHIPPED = CONFIGS / "demo" / "checkpoint"
REMAKE = "the demo's base model is no longer what its script makes: undo this, or make configs/demo/checkpoint anew"


@pytest.mark.parametrize("config", ["demo", "ablation-demo"])
def test_the_shipped_checkpoint_is_small_and_whole(config):
    folder = CONFIGS / config / "checkpoint"
    files = [path for path in folder.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5_000_000
    assert not {path.suffix for path in files} - {".json", ".safetensors"}
    model, tokenizer = load_internvl2(folder), load_tokenizer(folder)
    assert all(torch.isfinite(weight).all() for weight in model.parameters())
    assert model.config.image_seq_length == TOKENS
    for token in CHAT:
        assert tokenizer(token).input_ids == [tokenizer.convert_tokens_to_ids(token)]
    for text in ("5_surprise,2;5_surprise,5", "naïve café 漢字 \U0001f600", "Ana: Wait!\n2_joy."):
        assert tokenizer.decode(tokenizer(text).input_ids) == text


@pytest.mark.parametrize(
    "mixes, known", [(MIXES, "54a5029ee266ea0f"), (UNTAUGHT, "7d912c129bc06d14")], ids=["taught", "untaught"]
)
def test_pretraining_still_asks_what_the_shipped_checkpoint_was_asked(mixes, known):
    """Questions, answers and pixels of every mix: what a new wording, label or drawing must not change unnoticed."""
    digest = hashlib.sha256()
    for name, mix in mixes.items():
        for example in PretrainingTasks(random.Random(name)).batch(mix, 30):
            pixels = [picture.tobytes() for picture in example.pictures]
            digest.update(repr((example.question, example.answer, example.video, pixels)).encode())
    assert digest.hexdigest()[:16] == known, REMAKE


def test_the_untaught_base_never_answers_with_a_label_nor_what_a_task_asks():
    """Labels stand in questions only; no answer is a mood, a verdict, a list of a face's movements, or a cause."""
    labels, moods = {label.lower() for label in WORDING["labels"]}, {*MOODS.values(), "yes", "no"}
    for name, mix in UNTAUGHT.items():
        for example in PretrainingTasks(random.Random(f"look at {name}")).batch(mix, 150):
            said = {word.strip(".,;:!").lower() for word in example.answer.replace("_", " ").split()}
            assert not said & labels and example.answer not in moods, example.answer
            if example.pictures:
                assert "Which parts" not in example.question and "look?" not in example.question
    asked = [x.question for x in PretrainingTasks(random.Random(0)).batch(UNTAUGHT["words"], 200)]
    assert any("Sadness" in question for question in asked), "but it has read them"


def test_the_script_still_makes_the_shipped_tokenizer_and_config(tmp_path):
    tokenizer = tokenizer_of(0)
    tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (SHIPPED / "tokenizer.json").read_bytes(), REMAKE
    assert read_json(SHIPPED / "config.json") == CONFIG
    assert CONFIG["llm_config"]["eos_token_id"] == tokenizer.eos_token_id
    assert CONFIG["llm_config"]["pad_token_id"] == tokenizer.pad_token_id
    assert CONFIG["llm_config"]["vocab_size"] == len(tokenizer)


@pytest.mark.slow
@pytest.mark.parametrize("untaught", [False, True])
def test_the_same_seed_gives_the_same_files(untaught, tmp_path):
    for name in ("one", "two"):
        make(tmp_path / name, seed=0, steps=8, untaught=untaught)
    names = sorted(path.name for path in SHIPPED.iterdir())
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
        if name != "model.safetensors":
            assert (tmp_path / "one" / name).read_bytes() == (SHIPPED / name).read_bytes(), name
    assert load_internvl2(tmp_path / "one").config.image_seq_length == TOKENS


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(InputError, match="exists already"):
        make(tmp_path, seed=0, steps=0)
