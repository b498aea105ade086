"""M2SE mixing: exact ratios, seeded draws that depend on nothing else, disjoint stages, scarcity reported."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from swift_plugins import mixture
from swift_plugins.files import InputError

ROOT = Path(__file__).resolve().parents[1]


def write_channel(folder: Path, channel: str, count: int, split: str = "train", shuffle: int | None = None) -> None:
    dataset = channel.split(".")[0]
    rows = [
        {"id": f"{dataset}/{split}/clip{i}", "channel": channel, "query": f"q{i}", "response": f"r{i}"}
        for i in range(count)
    ]
    if shuffle is not None:
        random.Random(shuffle).shuffle(rows)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{channel}.{split}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def plan(*args: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "swift_plugins.mixture", *args], cwd=ROOT, capture_output=True, text=True
    )


PAPER = {
    "mosei.msa": 15870,
    "mosei.fer": 15870,
    "mosei.mer": 15870,
    "mosei.eri": 4839,
    "meld.mer": 9989,
    "ecf.ecpe": 7081,
}


@pytest.fixture(scope="module")
def amt(tmp_path_factory) -> Path:
    """AMT folder with the paper's counts per channel (Table 1)."""
    folder = tmp_path_factory.mktemp("amt")
    for channel, count in PAPER.items():
        write_channel(folder, channel, count)
    return folder


@pytest.mark.parametrize(
    ("size", "weights", "counts", "why"),
    [
        (15000, [6, 3, 1], [9000, 4500, 1500], "stage 1 of the paper"),
        (16130, [3, 3, 3, 1], [4839, 4839, 4839, 1613], "stage 2 with 4,839 ERI clips"),
        (0, [6, 3, 1], [0, 0, 0], "nothing to share"),
        (1, [1, 1, 1], [1, 0, 0], "a tie of remainders goes to the first"),
        (2, [6, 3, 1], [1, 1, 0], "1.2 0.6 0.2: the largest remainder is FER's"),
        (10, [1], [10], "a single task takes all"),
    ],
)
def test_apportion(size, weights, counts, why):
    assert mixture.apportion(size, weights) == counts, why


@given(st.integers(0, 20000), st.lists(st.integers(1, 50), min_size=1, max_size=6))
def test_apportion_is_exact_and_fair(size, weights):
    counts = mixture.apportion(size, weights)
    assert sum(counts) == size
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - size * weight / sum(weights)) < 1  # the quota rule of the largest remainder


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 60)), min_size=1, max_size=4))
def test_largest_size_is_the_largest(parts):
    weights, available = zip(*parts, strict=True)
    size = mixture.largest_size(weights, available)

    def fits(n: int) -> bool:
        return all(n * w <= a * sum(weights) for w, a in zip(weights, available, strict=True))

    assert fits(size) and not fits(size + 1)
    assert all(c <= a for c, a in zip(mixture.apportion(size, weights), available, strict=True))


@pytest.mark.slow
def test_paper_stages(amt):
    mixtures = mixture.read_mixtures(ROOT / "configs" / "mixtures.yaml")
    first, second = (mixture.draw(mixtures, name, amt) for name in ("stage1", "stage2"))
    counts = [{s.task: len(s.rows) for s in plan.shares} for plan in (first, second)]
    assert counts[0] == {"msa": 9000, "fer": 4500, "mer": 1500}
    assert counts[1] == {"mer": 4839, "eri": 4839, "ecpe": 4839, "msa": 1613}
    seen = [{(row["id"], row["channel"]) for row in plan.rows} for plan in (first, second)]
    assert len(seen[0]) == 15000 and len(seen[1]) == 16130 and not seen[0] & seen[1]
    # tasks alternate: no task is missing from the first hundred rows
    assert {row["channel"] for row in first.rows[:100]} == {"mosei.msa", "mosei.fer", "mosei.mer"}


def test_smaller_draw_is_a_part_of_the_larger(amt):
    mixtures = mixture.read_mixtures(ROOT / "configs" / "mixtures.yaml")
    small, large = (mixture.draw(mixtures, "stage1", amt, size).rows for size in (1000, 15000))
    assert {(r["id"], r["channel"]) for r in small} < {(r["id"], r["channel"]) for r in large}


def test_processes_with_other_file_orders_draw_the_same(tmp_path):
    code = (
        "import sys, json; from swift_plugins import mixture as m;"
        "p = m.draw(m.read_mixtures(), 'stage1', sys.argv[1], 100); p.check();"
        "print(json.dumps([(r['id'], r['channel']) for r in p.rows]))"
    )
    outputs = []
    for order in (1, 2):
        for channel in ("mosei.msa", "mosei.fer", "mosei.mer"):
            write_channel(tmp_path / str(order), channel, 100, shuffle=order)
        command = [sys.executable, "-c", code, str(tmp_path / str(order))]
        outputs.append(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    assert outputs[0] == outputs[1] and len(json.loads(outputs[0])) == 100


@settings(max_examples=40, deadline=None)
@given(
    counts=st.fixed_dictionaries({channel: st.integers(0, 40) for channel in PAPER}),
    size=st.integers(1, 60),
    seed=st.integers(0, 5),
    weights=st.lists(st.integers(1, 6), min_size=3, max_size=3),
    disjoint=st.sampled_from(["clip_task", "clip"]),
    shuffle=st.integers(0, 3),
)
def test_any_mixture(tmp_path_factory, counts, size, seed, weights, disjoint, shuffle):
    """Whatever the counts, ratio and seed: exact or said to be scarce, no repeats, no overlap, order-free."""
    folder = tmp_path_factory.mktemp("any")
    for channel, count in counts.items():
        write_channel(folder, channel, count, shuffle=shuffle)
    config = {
        "seed": seed,
        "stages": {
            "one": {
                "size": size,
                "tasks": {
                    task: {"weight": weight, "sources": [f"mosei.{task}"]}
                    for task, weight in zip(("msa", "fer", "mer"), weights, strict=True)
                },
            },
            "two": {
                "after": ["one"],
                "disjoint": disjoint,
                "tasks": {
                    "mer": {"weight": weights[0], "sources": ["meld.mer", "mosei.mer"]},
                    "msa": {"weight": weights[1], "sources": ["mosei.msa"]},
                },
            },
        },
    }
    path = folder / "mixtures.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    mixtures = mixture.read_mixtures(path)
    one, two = mixture.draw(mixtures, "one", folder), mixture.draw(mixtures, "two", folder)

    wanted = mixture.apportion(size, weights)
    for share, want in zip(one.shares, wanted, strict=True):
        assert len(share.rows) == min(want, share.available)
    scarce = any(want > counts[f"mosei.{task}"] for task, want in zip(("msa", "fer", "mer"), wanted, strict=True))
    if scarce:
        with pytest.raises(InputError, match="too scarce"):
            one.check()
    else:
        one.check()
    keys = [[(row["id"], row["channel"]) for row in plan.rows] for plan in (one, two)]
    assert all(len(set(k)) == len(k) for k in keys)
    assert not set(keys[0]) & set(keys[1])
    if disjoint == "clip":
        assert not {clip for clip, _ in keys[0]} & {clip for clip, _ in keys[1]}

    before = one.rows
    for channel, count in counts.items():
        write_channel(folder, channel, count, shuffle=shuffle + 7)
    assert mixture.draw(mixtures, "one", folder).rows == before


def test_seed_changes_the_draw(tmp_path):
    write_channel(tmp_path, "mosei.msa", 200)
    draws = []
    for seed in (1, 2):
        path = tmp_path / "m.yaml"
        tasks = {"msa": {"weight": 1, "sources": ["mosei.msa"]}}
        path.write_text(yaml.safe_dump({"seed": seed, "stages": {"s": {"size": 20, "tasks": tasks}}}))
        draws.append({row["id"] for row in mixture.draw(mixture.read_mixtures(path), "s", tmp_path).rows})
    assert draws[0] != draws[1]


def test_oversampling_only_where_the_config_says(tmp_path):
    write_channel(tmp_path, "mosei.msa", 30)
    write_channel(tmp_path, "mosei.fer", 4)
    tasks = {
        "msa": {"weight": 1, "sources": ["mosei.msa"]},
        "fer": {"weight": 1, "sources": ["mosei.fer"], "oversample": True},
    }
    path = tmp_path / "m.yaml"
    path.write_text(yaml.safe_dump({"stages": {"s": {"tasks": tasks}}}))
    drawn = mixture.draw(mixture.read_mixtures(path), "s", tmp_path)
    drawn.check()
    fer = [row["id"] for row in drawn.rows if row["channel"] == "mosei.fer"]
    assert len(fer) == 30 and {fer.count(i) for i in set(fer)} == {7, 8}, "whole passes, then the first of the next"


def test_plan_command(amt, tmp_path):
    done = plan("--stage", "stage2", "--data", str(amt), "--json", str(tmp_path / "plan.json"))
    assert done.returncode == 0, done.stderr
    assert "mosei.eri" in done.stdout and "4,839" in done.stdout and "6,870 of 15,870" in done.stdout
    assert json.loads((tmp_path / "plan.json").read_text())["size"] == 16130


def test_scarce_task_is_named_and_refused(tmp_path):
    for channel, count in (("mosei.msa", 900), ("mosei.fer", 30), ("mosei.mer", 900)):
        write_channel(tmp_path, channel, count)
    done = plan("--stage", "stage1", "--data", str(tmp_path), "--size", "1000")
    assert done.returncode == 2
    assert "TOO SCARCE" in done.stdout
    assert done.stderr.count("\n") == 1
    assert "fer wants 300 rows and has 30 (mosei.fer); the largest size that keeps the ratio is 100" in done.stderr


def test_a_stage_that_there_is_not_is_told_what_there_is(tmp_path):
    for channel in ("mine.fer", "mine.mer", "meld.mer"):
        write_channel(tmp_path, channel, 3)
    write_channel(tmp_path, "mosei.msa", 0)
    done = plan("--stage", "mime", "--data", str(tmp_path))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "mixtures.yaml: has no stage mime; there are stage1, stage2, stage1_less_fer," in done.stderr
    assert done.stderr.endswith(f", and {tmp_path} has train rows of meld (meld.mer), mine (mine.fer, mine.mer)\n")


def test_task_without_rows_is_named(tmp_path):
    write_channel(tmp_path, "meld.mer", 10)
    done = plan("--stage", "stage2", "--data", str(tmp_path))
    assert done.returncode == 2 and "eri wants" in done.stderr and "build its rows first" in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "stages: {s: {tasks: {msa: {weight: 0, sources: [mosei.msa]}}}}",
            "msa.weight: Input should be greater than 0",
        ),
        ("stages: {s: {tasks: {msa: {weight: 1, sources: [mosei.mer]}}}}", "mosei.mer is not a channel <dataset>.msa"),
        (
            "stages: {s: {tasks: {msa: {weight: 1, sources: []}}}}",
            "msa.sources: List should have at least 1",
        ),
        ("stages: {s: {tasks: {xyz: {weight: 1, sources: [mosei.xyz]}}}}", "stages.s: xyz is not a task"),
        (
            "stages: {s: {size: -1, tasks: {msa: {weight: 1, sources: [mosei.msa]}}}}",
            "size: -1 is neither a positive",
        ),
        ("stages: {s: {after: [t], tasks: {msa: {weight: 1, sources: [mosei.msa]}}}}", "after names t"),
        ("stages: {s: {ratio: 1, tasks: {msa: {weight: 1, sources: [mosei.msa]}}}}", "stages.s.ratio: unknown key"),
        ("stages: [", "is not YAML"),
        ("seed: 1", "stages: missing key"),
        ("stages: {s: {tasks: {msa: {weight: 1, sources: [mosei.msa], oversample: true}}}}", "every task oversamples"),
    ],
)
def test_faulty_mixtures_file(tmp_path, text, message):
    path = tmp_path / "mixtures.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"mixtures\.yaml") as error:
        mixture.read_mixtures(path)
    assert message in str(error.value)


ROW = '"id": "a", "channel": "meld.mer", "query": "q", "response": "r"'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "a", "channel": "meld.mer", "query": "q"}', "no text under response"),
        ('{"id": "a", "channel": "meld.msa", "query": "q", "response": "r"}', "channel meld.msa in a file of meld.mer"),
        (f'{{{ROW}, "audios": "a.mp4"}}', "audios is not a list, but 'a.mp4'"),
        (f'{{{ROW}, "audios": [1]}}', "images, videos and audios are not lists of paths"),
        ("nonsense", "is not JSON"),
        ("[1]", "holds a list"),
    ],
)
def test_faulty_rows(tmp_path, line, message):
    good = '{"id": "x", "channel": "meld.mer", "query": "q", "response": "r"}\n'
    (tmp_path / "meld.mer.train.jsonl").write_text(good + line + "\n")
    with pytest.raises(InputError, match=r"meld\.mer\.train\.jsonl:2") as error:
        mixture.read_channel(tmp_path, "meld.mer", "train")
    assert message in str(error.value)


def test_duplicate_id(tmp_path):
    row = '{"id": "x", "channel": "meld.mer", "query": "q", "response": "r"}\n'
    (tmp_path / "meld.mer.train.jsonl").write_text(row * 2)
    with pytest.raises(InputError, match="duplicate id x"):
        mixture.read_channel(tmp_path, "meld.mer", "train")
