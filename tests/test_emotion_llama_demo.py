"""The pieces of the demos of Emotion-LLaMA and Emotion-LLaMAv2 that no other test runs: tiny files, stages, tables."""

from __future__ import annotations

import json
import sys

import pytest

from data_prep.demo import emotion_llama, summary
from swift_plugins.files import InputError
from tests.conftest import ROOT, in_process
from tests.test_template import PLUGIN
from tests.tiny_emotion_llama import converted, tiny_base
from tests.warm_swift import swift

pytestmark = pytest.mark.slow
ROWS = [
    (
        "merr_coarse.mer",
        " The person in video says: Oh no, the poor kite!.  [emotion] Which label: happy, sad? ",
        "sad",
    ),
    (
        "merr_coarse.eri",
        " The person in video says: Hm.  [reason] Why? ",
        "The face shows a smile. So the emotion is happy.",
    ),
]


def rows(folder):
    folder.mkdir()
    for channel, query, answer in ROWS:
        row = {"id": "merr_coarse/train/a", "channel": channel, "query": query, "response": answer}
        (folder / f"{channel}.train.jsonl").write_text(json.dumps(row) + "\n")
    return folder


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["demo", *map(str, arguments)])
    return emotion_llama.main()


def test_words_of_the_rows_are_tokens_and_nothing_is_lost():
    words = emotion_llama.tokenizer([text for _, *texts in ROWS * 5 for text in texts])
    letters = emotion_llama.tokenizer()
    assert words.tokenize("happy") == ["▁happy"] and len(letters.tokenize("happy")) == 6
    for text in ("Oh no, the poor  kite!", "never seen: Übermut ☂", "[INST] <video>"):
        assert words.decode(words(text)["input_ids"], skip_special_tokens=True) == text
        assert letters.decode(letters(text)["input_ids"], skip_special_tokens=True) == text


def test_the_files_become_a_base_and_are_the_same_again(tmp_path, monkeypatch):
    from safetensors.torch import load_file

    made = rows(tmp_path / "amt")
    for name in ("one", "other"):
        run(monkeypatch, "--rows", made, "--out", tmp_path / name)
    for part in ("llama", "hubert", "whisper"):
        one, other = (load_file(tmp_path / name / part / "model.safetensors") for name in ("one", "other"))
        assert all((one[key] == other[key]).all() for key in one | other)
    files = tmp_path / "one"
    flags = ["--heads", 4, "--image-size", 56, "--set", "stream_width=64", "--out", tmp_path / "base"]
    converted("base", "--eva", files / "eva.pth", "--llama", files / "llama", *flags)
    assert json.loads((tmp_path / "base" / "config.json").read_text())["stream_width"] == 64
    with pytest.raises(InputError, match="is there already"):
        run(monkeypatch, "--rows", made, "--out", files)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no training rows"):
        run(monkeypatch, "--rows", tmp_path / "empty", "--out", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_table_of_hearing(tmp_path):
    """What the sound brings stands below, in points."""
    for kind, accuracies in {"sound": (0.75, 0.5), "silence": (0.25, 0.25)}.items():
        for number, accuracy in enumerate(accuracies, 1):
            scores = {"strict": {"accuracy": accuracy}, "baselines": {"majority": {"accuracy": 0.3}}}
            path = tmp_path / kind / f"stage{number}.test.scores.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps({"mer2023.mer": scores}))
    lines = [line.split() for line in summary.hearing(tmp_path)]
    assert lines[1:] == [
        ["with", "sound", "75.0", "50.0", "30.0"],
        ["without", "25.0", "25.0", "30.0"],
        ["difference", "50.0", "25.0"],
    ]
    (tmp_path / "silence" / "stage2.test.scores.json").write_text("{}")
    with pytest.raises(InputError, match="holds no scores"):
        summary.hearing(tmp_path)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """AMT rows of the synthetic sets, as the demo of the curriculum builds them."""
    folder = tmp_path_factory.mktemp("mmeverse")
    done = in_process("-m", "data_prep.demo", "--out", folder / "raw", "--size", "tiny", "--sound", "--mmeverse")
    assert done.returncode == 0, done.stderr
    for split in ("train", "test"):
        given = ["--mmeverse", folder / "raw" / "mmeverse", "--out", folder / "amt", "--media-root", folder]
        done = in_process("-m", "data_prep.build_amt", "--split", split, *given)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.swift
@pytest.mark.parametrize("fusion", ["conv-attention", "none"])
def test_the_curriculum_trains_both_stages_and_its_answers_are_scored(tables, tmp_path, fusion):
    """configs/emotion-llama-v2 and the mixtures of v2, two steps each, with fusion and without."""
    from safetensors.torch import load_file

    base = tiny_base(tmp_path, 2, "--fusion", fusion)
    world = {"AMT_DATA": tables / "amt", "AMT_MEDIA": tables}
    small = ["--torch_dtype", "float32", "--bf16", "false", "--max_steps", "2", "--save_steps", "2"]
    small += ["--warmup_steps", "0", "--lr_scheduler_type", "constant", "--learning_rate", "0.01"]
    small += ["--report_to", "none", "--dataloader_num_workers", "0", "--external_plugins", PLUGIN]
    projections = ["llama_proj", "llama_proj_video", "llama_proj_audio"]
    more = ["--modules_to_save", *projections] if fusion == "none" else []
    before = []
    for stage, mixture in (("stage1", "el2_perception"), ("stage2", "el2_cognition")):
        given = ["--model", base, "--dataset", f"amt:{mixture}#24", "--output_dir", tmp_path / stage, *before, *more]
        swift("sft", ROOT / "configs" / "emotion-llama-v2" / f"{stage}.yaml", *given, *small, cwd=tmp_path, **world)
        before = ["--adapters", tmp_path / stage / "checkpoint-2"]
    state = load_file(tmp_path / "stage2" / "checkpoint-2" / "adapter_model.safetensors")
    saved = {name.removeprefix("base_model.model.").split(".")[0] for name in state if ".lora_" not in name}
    fused = {"llama_proj_fusion", "conv_pro_module"} if fusion != "none" else set()
    assert saved == {*projections, *fused}
    answers = tmp_path / "answers.jsonl"
    flags = [
        "--result_path",
        answers,
        "--max_new_tokens",
        "4",
        "--torch_dtype",
        "float32",
        "--external_plugins",
        PLUGIN,
    ]
    swift("infer", ROOT / "configs/emotion-llama-v2/infer.yaml", *before, *flags, cwd=tmp_path, **world)
    done = in_process(ROOT / "compute_result.py", answers, "--json", tmp_path / "scores.json")
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "scores.json").read_text())
    asked = {"mafw.mer", "mafw.mlmer", "bold.mlmer", "mc_eiu.intent", "cmu_mosi.msa.three", "mer2023.ov", "ov_merd.ov"}
    assert asked < scores.keys() and all(block["n"] for block in scores.values())


def test_the_table_of_the_curriculum(tmp_path):
    """A line a benchmark, means over seeds, by the figure that the field quotes."""
    for kind, best in {"conv-attention": 0.6, "none": 0.4}.items():
        for seed, more in {"1": 0.0, "2": 0.1}.items():
            for number in (1, 2):
                figures = {"hit_rate": best + more, "f": 0.1}
                block = {"strict": figures, "official": figures, "baselines": {"majority": {"hit_rate": 0.3, "f": 0.3}}}
                labels = {"strict": {"weighted_f1": 0.5}, "baselines": {"majority": {"weighted_f1": 0.2}}}
                path = tmp_path / kind / seed / f"stage{number}.test.scores.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps({"mer2023.ov": block, "mafw.mer": labels}))
    head, hits, names, means = summary.curriculum(tmp_path)
    assert head.split() == ["fusion", "1", "fusion", "2", "no", "fusion", "1", "no", "fusion", "2", "majority"]
    assert " ".join(hits.split()) == "mer2023.ov hit rate 65.0 ± 7.1 65.0 ± 7.1 45.0 ± 7.1 45.0 ± 7.1 30.0"
    assert names.split()[:5] == ["mafw.mer", "weighted", "f1", "50.0", "±"]
    assert " ".join(means.split()) == "mean 57.5 ± 3.5 57.5 ± 3.5 47.5 ± 3.5 47.5 ± 3.5"
    (tmp_path / "none" / "1" / "stage2.test.scores.json").write_text("[]")
    with pytest.raises(InputError, match="holds no scores of stage 2"):
        summary.curriculum(tmp_path)
