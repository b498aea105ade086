"""Two systems on the same rows: `compute_result.py --against`."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from swift_plugins.scoring.paired import compare
from swift_plugins.scoring.results import read_results
from tests.conftest import ROOT, in_process


def write(path: Path, answers: list[str], golds: list[str], channel="meld.mer", first=0) -> Path:
    rows = (
        {"id": f"meld/test/{first + number}", "channel": channel, "labels": f"{gold}.", "response": f"{answer}."}
        for number, (answer, gold) in enumerate(zip(answers, golds, strict=True))
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def channel(path: Path):
    return read_results([path])["meld.mer"]


GOLDS = ["Joy", "Anger", "Fear", "Sadness"] * 25


def right(indices) -> list[str]:
    """Answers that are right for these rows and wrong for the others."""
    return [gold if row in indices else "Disgust" for row, gold in enumerate(GOLDS)]


@pytest.mark.parametrize(
    "ours, theirs, only_ours, only_theirs, p",
    [
        (range(60), range(60), 0, 0, 1.0),  # the same answers
        (range(60), range(10, 55), 15, 0, 2 / 2**15),  # 2 x 0.5^15
        (range(60), range(15, 65), 15, 5, 0.041389),  # binomial: 15 of 20
        (range(60), range(5, 65), 5, 5, 1.0),
    ],
)
def test_mcnemar(tmp_path, ours, theirs, only_ours, only_theirs, p):
    one = channel(write(tmp_path / "one.jsonl", right(ours), GOLDS))
    two = channel(write(tmp_path / "two.jsonl", right(theirs), GOLDS))
    test = compare(one, two, draws=10)["mcnemar"]
    assert (test["only_ours"], test["only_theirs"]) == (only_ours, only_theirs)
    assert test["p"] == pytest.approx(p, rel=1e-4)


def test_paired_bootstrap_is_that_of_rows_drawn_one_by_one(tmp_path):
    """Against a plain loop over rows: interval and p of accuracy."""
    mine, other = right(range(60)), right(range(12, 62))
    one, two = channel(write(tmp_path / "one.jsonl", mine, GOLDS)), channel(write(tmp_path / "two.jsonl", other, GOLDS))
    found = compare(one, two, draws=4000)["figures"]["accuracy"]
    gain = np.array([(a == g) - (b == g) for a, b, g in zip(mine, other, GOLDS, strict=True)], float)
    draw = np.random.default_rng(7)
    means = np.array([draw.choice(gain, len(gain)).mean() for _ in range(4000)])
    assert found["difference"] == pytest.approx(gain.mean())
    assert found["interval"] == pytest.approx(np.percentile(means, [2.5, 97.5]).tolist(), abs=0.011)
    assert found["p"] == pytest.approx((np.abs(means - means.mean()) >= gain.mean()).mean(), abs=0.02)
    assert compare(one, one, draws=200)["figures"]["accuracy"] | {"p": 1.0} == {
        **{"ours": 0.6, "theirs": 0.6, "difference": 0.0},
        **{"interval": [0.0, 0.0], "p": 1.0},
    }


def test_the_order_of_the_rows_does_not_matter(tmp_path):
    path = write(tmp_path / "one.jsonl", right(range(60)), GOLDS)
    lines = path.read_text().splitlines()
    random.Random(0).shuffle(lines)
    (tmp_path / "two.jsonl").write_text("\n".join(lines) + "\n")
    found = compare(channel(path), channel(tmp_path / "two.jsonl"), draws=50)
    assert all(figure["difference"] == 0 and figure["p"] == 1 for figure in found["figures"].values())


def test_the_command(tmp_path):
    ours = write(tmp_path / "ours.jsonl", right(range(60)), GOLDS)
    theirs = write(tmp_path / "theirs.jsonl", right(range(15, 65)), GOLDS)

    done = in_process(ROOT / "compute_result.py", ours, "--against", theirs, "--json", tmp_path / "scores.json")
    assert done.returncode == 0, done.stderr
    assert "right in ours alone 15, in theirs alone 5: McNemar's exact p 0.0414" in done.stdout
    block = json.loads((tmp_path / "scores.json").read_text())["meld.mer"]["against"]
    assert block["figures"]["accuracy"]["difference"] == pytest.approx(0.1)
    others = write(tmp_path / "others.jsonl", right(range(60)), GOLDS, first=10)
    done = in_process(ROOT / "compute_result.py", ours, "--against", others)
    assert done.returncode == 2 and "--against holds other rows: 10 missing, 10 surplus" in done.stderr
