"""A task and a dataset added from a folder outside the project: built, planned, scored, examined, nothing touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

TASK = '''
"""SPK: who says it? One file, its line in TASKS, its wording in prompts.yaml."""
from collections import Counter

from swift_plugins import metrics
from swift_plugins.tasks import TASKS, Gold, LabelTask


class Speaker(LabelTask):
    key = "spk"
    name = "speaker identification"
    identifier = "<speaker>"
    labels = {"toy": ("Ann", "Bob")}
    protocols = ("labels",)
    headlines = (("accuracy", "accuracy"),)

    def golds(self, sample, records, options):
        if sample.speaker:
            yield Gold(sample.speaker.lower())

    def count(self, dataset, golds, predictions, keys) -> Counter:
        return metrics.confusion(golds, predictions)

    def finish(self, dataset, counts):
        return metrics.classification(counts, self.classes(dataset))


TASKS["spk"] = Speaker()
'''

DATASET = '''
"""A dataset: one reader, its line in READERS, its label sets."""
import csv
import types
from pathlib import Path

from data_prep.readers import READERS
from data_prep.readers.sample import Sample
from swift_plugins.tasks import TASKS


def read(root, split, faults):
    with open(Path(root) / "toy.csv", newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] == split:
                yield Sample(
                    id=f"toy/{split}/{row['id']}", dataset="toy", split=split, text=row["text"],
                    speaker=row["speaker"], emotion=row["emotion"],
                )


READERS["toy"] = types.SimpleNamespace(read=read)
TASKS["mer"].labels["toy"] = ("Glad", "Gloomy")
'''

PROMPTS = """
tasks:
  spk: "{transcript}\\n{identifier} Who says this? Answer with one of: {labels}."
"""
MIXTURES = """
stages:
  stage1:
    size: 6
    tasks:
      mer: {weight: 1, sources: [toy.mer]}
      spk: {weight: 1, sources: [toy.spk]}
"""


@pytest.fixture
def mine(tmp_path, project):
    """The folder of files, and a way to run a command with them."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "speaker.py").write_text(TASK)
    (folder / "toy.py").write_text(DATASET)
    (folder / "prompts.yaml").write_text(PROMPTS)
    (folder / "mixtures.yaml").write_text(MIXTURES)
    lines = [f"{i},Line {i}.,{('Ann', 'Bob')[i % 2]},{('glad', 'gloomy')[i // 2 % 2]},train" for i in range(8)]
    lines += [f"{i},Test {i}.,Ann,glad,test" for i in range(2)]
    (folder / "toy.csv").write_text("\n".join(["id,text,speaker,emotion,split", *lines]) + "\n")

    def run(*args, status=0, **env):
        done = project(*args, cwd=folder, AMT_EXTENSIONS="speaker.py:toy.py", **env)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    return folder, run


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_a_task_and_a_dataset_of_ones_own(mine):
    folder, run = mine
    for split in ("train", "test"):
        build = ("--toy", ".", "--split", split, "--out", "amt", "--prompts", "prompts.yaml")
        run("-m", "data_prep.build_amt", *build, "--missing-media", "text-only")
    built = rows(folder / "amt" / "toy.spk.test.jsonl")
    assert built[0]["query"] == "Test 0.\n<speaker> Who says this? Answer with one of: Ann, Bob."
    assert [row["response"] for row in built] == ["Ann.", "Ann."]
    assert len(rows(folder / "amt" / "toy.mer.train.jsonl")) == 8

    plan = run("-m", "swift_plugins.mixture", "--stage", "stage1", "--data", "amt", "--mixtures", "mixtures.yaml")
    assert "toy.spk" in plan and "total" in plan

    answers = ["Ann.", "it is bob"]
    results = [
        {key: row[key] for key in ("id", "channel")} | {"labels": row["response"], "response": answer}
        for row, answer in zip(built, answers, strict=True)
    ]
    (folder / "result.jsonl").write_text("".join(json.dumps(row) + "\n" for row in results))
    root = Path(__file__).resolve().parents[1]
    run(root / "compute_result.py", "result.jsonl", "--json", "scores.json", "--report", "report")
    block = json.loads((folder / "scores.json").read_text())["toy.spk"]
    assert (block["n"], block["unparsed"], block["strict"]["accuracy"], block["lenient"]["accuracy"]) == (
        2,
        1,
        0.5,
        0.5,
    )
    assert block["baselines"]["majority"]["accuracy"] == 1
    assert "speaker identification" in (folder / "report" / "index.html").read_text()

    assert "toy" in run("-m", "data_prep.doctor", "--toy", ".")


def test_a_task_without_wording_and_a_missing_file_are_named(mine, project):
    folder, _ = mine
    build = ["-m", "data_prep.build_amt", "--toy", ".", "--split", "test", "--out", "amt"]
    build += ["--missing-media", "text-only"]
    done = project(*build, cwd=folder, AMT_EXTENSIONS="speaker.py:toy.py")
    assert done.returncode == 2 and "no wording for spk" in done.stderr and done.stderr.count("\n") == 1
    done = project(*build, cwd=folder, AMT_EXTENSIONS="nowhere.py")
    assert (done.returncode, done.stderr) == (2, "error: nowhere.py: no such Python file (AMT_EXTENSIONS)\n")
