"""Ablations: which runs there are, real ones on the smallest dataset, and the arithmetic of their report."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
from pathlib import Path

import pytest
import yaml

from swift_plugins import ablation, mixture
from swift_plugins.files import InputError
from tests.conftest import in_process
from tests.test_stages import MIXTURES

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"

# Runs: what there is to make, in which order


@pytest.mark.parametrize("config", ["emoverse-4b", "emoverse-8b", "ablation-demo", "small"])
def test_every_variant_names_a_mixture_that_there_is(config):
    own = CONFIGS / config / "mixtures.yaml"
    mixtures = mixture.read_mixtures(own if own.is_file() else CONFIGS / "mixtures.yaml")
    read = ablation.read_ablation(CONFIGS / config)
    assert {variant.mixture for variant in read.variants.values()} - {""} <= mixtures.stages.keys()
    assert set(read.tables) == {"Table 2", "Table 3", "Table 5"}


@pytest.mark.parametrize(
    "only, runs, why",
    [
        (["m2se"], [("stage1", 1), ("stage1", 2), ("m2se", 1), ("m2se", 2)], "what it starts from is made first"),
        (["zero-shot"], [("zero-shot", None)], "the base model does not depend on a seed"),
        (["single-mer", "zero-shot"], [("zero-shot", None), ("single-mer", 1), ("single-mer", 2)], "the file's order"),
    ],
)
def test_runs_of_variants(only, runs, why):
    read = ablation.read_ablation(CONFIGS / "emoverse-4b")
    assert [(run.name, run.seed) for run in ablation.runs_of(read, (1, 2), only)] == runs, why


def test_all_runs_share_what_can_be_shared():
    runs = ablation.runs_of(ablation.read_ablation(CONFIGS / "emoverse-4b"), (1, 2, 3))
    names = [run.name for run in runs]
    assert len(runs) == 25 and names.count("stage1") == 3 and names.count("zero-shot") == 1
    assert names.index("m2se") > max(number for number, name in enumerate(names) if name == "stage1")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"variants": {"a": {"stage1": "x", "stage2": "y"}}}, "trains one stage"),
        ({"variants": {"a": {"stage2": "y"}}}, "give both or neither"),
        ({"variants": {"a": {"stage2": "y", "after": "b"}}}, "after names b"),
        (
            {"variants": {"a": {"stage1": "x"}}, "tables": {"T": {"title": "t", "rows": ["b"], "against": "a"}}},
            "b is no",
        ),
    ],
)
def test_a_faulty_file_of_variants(tmp_path, change, message):
    whole = {"variants": {}, "tables": {}, "figures": [{"channel": "meld.mer", "figure": "accuracy", "words": "w"}]}
    (tmp_path / "ablation.yaml").write_text(yaml.safe_dump(whole | change))
    with pytest.raises(InputError, match=message):
        ablation.read_ablation(tmp_path)


# The report's arithmetic, on made answers

EMOTIONS = ("joy", "anger", "neutral", "sadness")


def made_run(folder: Path, variant: str, seed: int | None, wrong: set[int], rows: int = 40) -> Path:
    """A finished run whose answers to `rows` rows of meld.mer are right but for the numbers in `wrong`."""
    place = folder / variant / (ablation.BASE if seed is None else str(seed))
    place.mkdir(parents=True)
    with (place / "answers.jsonl").open("w") as file:
        for number in range(rows):
            gold = EMOTIONS[number % 4]
            said = EMOTIONS[(number + 1) % 4] if number in wrong else gold
            dialogue = f"meld/test/dia{number // 4}"
            row = {"id": f"{dialogue}_utt{number % 4}", "channel": "meld.mer", "facts": {"dialogue": dialogue}}
            row |= {"response": f"{said.capitalize()}.", "labels": f"{gold.capitalize()}."}
            file.write(json.dumps(row) + "\n")
    done = in_process(ROOT / "compute_result.py", place / "answers.jsonl", "--json", place / "answers.scores.json")
    assert done.returncode == 0, done.stderr
    made = {"variant": variant, "seed": seed, "stage": "stage1", "after": "", "mixture": "m", "tasks": {"mer": 8}}
    made |= {"steps": 2, "samples": 16, "answers": rows, "resumed": False, "peak_memory_mb": {"train": 100}}
    made |= {"seconds": {"train": 5.0, "answer": 1.0}, "config": {"name": "ablation-demo", "sha256": "0"}}
    made |= {"model": "m", "data": {"sha256": "0"}, "versions": {"torch": "0"}, "commit": "c", "score": "generate"}
    made |= {"machine": {"cores": 2, "side_by_side": 1}}
    (place / ablation.MANIFEST).write_text(json.dumps(made))
    return place


def table_of(text: str, title: str) -> dict[str, list[str]]:
    """First cell → cells of a table of the report."""
    part = text.split(f"## {title}", 1)[1].split("\n## ", 1)[0]
    lines = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("|")][2:]
    return {line[0]: [cell.strip() for cell in line[1:]] for line in lines}


def test_mean_deviation_and_difference_over_seeds(tmp_path):
    """Accuracies of 90, 80 and 70 % make 80.0 ± 10.0; the base model's one figure stands beside each seed."""
    for seed, count in ((1, 4), (2, 8), (3, 12)):
        made_run(tmp_path, "single-mer", seed, set(range(count)))
    made_run(tmp_path, "m2se", 1, set())
    made_run(tmp_path, "m2se", 2, {0, 1})
    made_run(tmp_path, "m2se", 3, {2, 3})
    made_run(tmp_path, "zero-shot", None, set(range(20)))
    done = in_process("-m", "benchmarks.ablation_report", tmp_path, "--out", tmp_path / "report", "--bootstrap", "200")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# Ablation")
    text = (tmp_path / "report" / "report.md").read_text()
    rows = table_of(text, "Table 5: ")
    values = [1.0, 0.95, 0.95]
    assert rows["single-mer"][2] == "80.0 ± 10.0" and rows["single-mer"][1] == "3"
    assert rows["m2se"][2] == f"{100 * statistics.mean(values):.1f} ± {100 * statistics.stdev(values):.1f}"
    assert rows["zero-shot"][1] == "–" and rows["zero-shot"][2].startswith("50.0 ± "), "one run: of the bootstrap"
    assert rows["single-ecpe"][0] == "not run"
    assert rows["majority"][2] == "25.0"
    compared = table_of(text, "Table 5, compared")
    assert compared["single-mer"][0].startswith("-16.7 [") and compared["zero-shot"][0].startswith("-46.7 [")
    assert float(compared["zero-shot"][0].rpartition("p ")[2]) < 0.05
    page = (tmp_path / "report" / "index.html").read_text()
    assert "80.0 ± 10.0" in page and "paper" in page and "<script" not in page


def test_the_papers_figures_stand_beside(tmp_path):
    made_run(tmp_path, "m2se", 1, set())
    done = in_process("-m", "benchmarks.ablation_report", tmp_path, "--bootstrap", "20")
    assert "| paper |  |  | 67.3 | 66.6 |" in done.stdout, "EmoVerse-4B on MELD"
    assert (tmp_path / "report" / "index.html").is_file()


def test_a_variant_compared_with_its_own_answers_differs_by_nothing(tmp_path):
    for name in ("single-mer", "m2se"):
        for seed in (1, 2):
            made_run(tmp_path, name, seed, {3, 9, 11})
    done = in_process("-m", "benchmarks.ablation_report", tmp_path, "--bootstrap", "50")
    assert table_of(done.stdout, "Table 5, compared")["single-mer"][0] == "+0.0 [+0.0, +0.0] p 1.000"


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda folder: shutil.rmtree(folder / "m2se"), "holds no finished run"),
        (lambda folder: (folder / "m2se/1/manifest.json").write_text("[]"), "is not the manifest of a run"),
        (lambda folder: (folder / "m2se/1/answers.scores.json").write_text("[]"), "is not a JSON object"),
        (lambda folder: made_run(folder, "single-mer", 1, set(), rows=36), "the runs answered other rows"),
    ],
)
def test_runs_that_cannot_be_reported(tmp_path, spoil, message):
    made_run(tmp_path, "m2se", 1, set())
    spoil(tmp_path)
    done = in_process("-m", "benchmarks.ablation_report", tmp_path)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.strip().splitlines()) == 1


# Real runs


@pytest.fixture(scope="module")
def small(world, project, tmp_path_factory) -> dict[str, Path]:
    """AMT rows of the smallest dataset without pictures' captions, and configs/ablation-demo cut down to them."""
    work = tmp_path_factory.mktemp("ablation")
    sets = [part for name in ("meld", "mosei", "ecf") for part in (f"--{name}", world / name)]
    fer = [
        "-m",
        "data_prep.fer",
        "--dataset",
        "mosei",
        "--root",
        world / "mosei",
        "--csv",
        world / "mosei" / "openface",
    ]
    done = project(*fer, "--out", work / "fer", "--split", "train", "test")
    assert done.returncode == 0, done.stderr
    for split in ("train", "test"):
        more = ["--fer", work / "fer" / "fer.jsonl", "--out", work / "amt", "--split", split]
        done = project("-m", "data_prep.build_amt", *sets, *more)
        assert done.returncode == 0, done.stderr
    config = work / "mini"
    config.mkdir()
    for stage in ("stage1", "stage2"):
        settings = yaml.safe_load((CONFIGS / "ablation-demo" / f"{stage}.yaml").read_text())
        settings |= {"logging_steps": 1, "val_dataset": ["amt:mosei.msa.test", "amt:meld.mer.test"]}
        (config / f"{stage}.yaml").write_text(yaml.safe_dump(settings))
    shutil.copy(CONFIGS / "demo" / "infer.yaml", config)
    (config / "mixtures.yaml").write_text(yaml.safe_dump(MIXTURES, sort_keys=False))
    variants = {"zero-shot": {}, "stage1": {"stage1": "stage1"}, "m2se": {"after": "stage1", "stage2": "stage2"}}
    variants["broken"] = {"stage1": "stage1"}
    table = {"title": "t", "rows": ["zero-shot", "stage1", "m2se"], "against": "m2se"}
    figures = [{"channel": "meld.mer", "figure": "accuracy", "words": "MER accuracy"}]
    told = {"variants": variants, "tables": {"Table 3": table}, "figures": figures, "score": "likelihood"}
    (config / "ablation.yaml").write_text(yaml.safe_dump(told))
    return {"data": work / "amt", "config": config, "output": work / "out"}


def run(small: dict[str, Path], *arguments: str) -> subprocess.CompletedProcess:
    """shell/ablation.sh from another folder than the project's."""
    environment = os.environ | {"DATA": str(small["data"]), "OUTPUT": str(small["output"]), "OMP_NUM_THREADS": "1"}
    environment |= {"MODEL": str(CONFIGS / "ablation-demo" / "checkpoint")}
    for key in ("AMT_DATA", "AMT_MEDIA", "AMT_SEED", "SEED"):
        environment.pop(key, None)
    command = ["bash", str(ROOT / "shell" / "ablation.sh"), str(small["config"]), *arguments]
    return subprocess.run(command, cwd=small["data"], env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.swift
def test_runs_are_planned_made_once_and_reported(small):
    done = run(small, "7", "--dry-run", "--pace", "6")
    assert done.returncode == 0, done.stderr
    assert "4 runs, 120 samples" in done.stdout and "about 6 min for what is left" in done.stdout
    assert not list(small["output"].glob("*/*"))
    (small["output"] / "broken").mkdir(parents=True)
    (small["output"] / "broken" / "7").write_text("a file where a folder should be")
    done = run(small, "7")
    assert done.returncode == 1, done.stdout
    assert "broken, seed 7: FAILED" in done.stderr and "3 of 4 runs are there" in done.stdout
    made = json.loads((small["output"] / "m2se" / "7" / "manifest.json").read_text())
    assert made["tasks"] == {"mer": 6, "eri": 6, "ecpe": 6, "msa": 2} and made["samples"] == 40
    assert made["seconds"]["train"] > 0 and made["peak_memory_mb"]["answer"] > 100 and made["data"]["sha256"]
    first = json.loads((small["output"] / "m2se" / "7" / "stage2" / "args.json").read_text())
    assert first["seed"] == 7 and "stage1/7/stage1/checkpoint-" in first["adapters"][0]
    again = run(small, "7", "--only", "m2se")
    assert again.returncode == 0 and again.stdout.count("done before") == 2, again.stdout
    report = in_process("-m", "benchmarks.ablation_report", small["output"], "--config", small["config"])
    assert report.returncode == 0, report.stderr
    rows = table_of(report.stdout, "Table 3: ")
    scores = json.loads((small["output"] / "m2se" / "7" / "answers.scores.json").read_text())
    assert rows["m2se"][2].startswith(f"{100 * scores['meld.mer']['strict']['accuracy']:.1f} ± ")
    assert rows["m2se"][0] == "MSA 12 FER 6 MER 2; MER 6 ERI 6 ECPE 6 MSA 2"
    assert "## Calibration" in report.stdout
    for name in ("loss.png", "scores.png"):
        assert (small["output"] / "report" / name).stat().st_size > 5000


def test_what_is_missing_is_said_in_one_line(tmp_path):
    for arguments, message in (
        (["no-such-config"], "neither a folder"),
        (["ablation-demo", "--only", "m3se"], "m3se is no variant"),
        (["ablation-demo", "--jobs", "-1"], "is not a number of runs"),
        (["ablation-demo", "--pace", "0"], "is not a number of seconds"),
    ):
        small = {"data": tmp_path, "config": Path(arguments[0]), "output": tmp_path / "out"}
        done = run(small, *arguments[1:])
        assert done.returncode == 2 and message in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
