"""M2SE mixing: exact ratios, seeded draws that depend on nothing else, disjoint stages, scarcity reported."""

from __future__ import annotations

import hashlib
import json
import random
import re
import subprocess
import sys
from collections import Counter
from fractions import Fraction
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


def mixtures_of(folder: Path, stages: dict, seed: int = 3) -> mixture.Mixtures:
    path = folder / "mixtures.yaml"
    path.write_text(yaml.safe_dump({"seed": seed, "stages": stages}, sort_keys=False))
    return mixture.read_mixtures(path)


def names(rows: list[dict]) -> list[tuple[str, str]]:
    return [(row["id"], row["channel"]) for row in rows]


def test_pooled_sources_draw_what_they_always_drew(tmp_path):
    """Digests of the draws of version 1: what was trained can be trained again."""
    for channel, count in (("mosei.msa", 60), ("mosei.mer", 20), ("meld.mer", 30), ("mosei.fer", 4)):
        write_channel(tmp_path, channel, count)
    fer = {"weight": 1, "sources": ["mosei.fer"], "oversample": True}
    msa = {"sources": ["mosei.msa"]}
    one = {"msa": {"weight": 3, **msa}, "mer": {"weight": 2, "sources": ["meld.mer", "mosei.mer"]}}
    two = {"mer": {"weight": 2, "sources": ["mosei.mer", "meld.mer"]}, "fer": fer, "msa": {"weight": 2, **msa}}
    mixtures = mixtures_of(tmp_path, {"one": {"size": 40, "tasks": one}, "two": {"after": ["one"], "tasks": two}})
    draws = [json.dumps(mixture.draw(mixtures, name, tmp_path).rows) for name in ("one", "two")]
    digests = [hashlib.sha256(draw.encode()).hexdigest()[:16] for draw in draws]
    assert digests == ["c4f171e974223688", "074e50d4f8a93b51"]


SETS = ("meld", "mosei", "bold", "caer")
LOTS = st.dictionaries(
    st.tuples(st.sampled_from(SETS), st.sampled_from(("msa", "mer"))),
    st.tuples(st.integers(1, 60), st.integers(0, 25)),  # weight, rows
    min_size=1,
)


@settings(max_examples=60, deadline=None)
@given(
    lots=LOTS,
    size=st.integers(1, 80),
    again=st.booleans(),
    leave_out=st.booleans(),
    seed=st.integers(0, 3),
    rng=st.randoms(),
)
def test_any_weighted_mixture(tmp_path_factory, lots, size, again, leave_out, seed, rng):
    """Whatever the channels, weights and rows: exact to the largest remainder over all channels of the stage at once,
    a smaller draw a prefix of a larger, the order of files indifferent, and what is left out named to the last bit."""
    folder = tmp_path_factory.mktemp("weighted")
    tasks: dict = {}
    for (dataset, task), (weight, count) in sorted(lots.items()):
        tasks.setdefault(task, {"sources": {}})["sources"][f"{dataset}.{task}"] = weight
        if count or rng.random() < 0.5:  # without rows: an empty file or none
            write_channel(folder, f"{dataset}.{task}", count, shuffle=1)
    stage = {"size": size, "replacement": again, "absent": "leave_out" if leave_out else "refuse", "tasks": tasks}
    mixtures = mixtures_of(folder, {"s": stage}, seed)
    plan = mixture.draw(mixtures, "s", folder)

    weights = {channel: weight for part in tasks.values() for channel, weight in part["sources"].items()}
    rows = {f"{dataset}.{task}": count for (dataset, task), (_, count) in lots.items()}
    left = [channel for channel in weights if leave_out and not rows[channel]]
    there = {channel: weight for channel, weight in weights.items() if channel not in left}
    wanted = dict(zip(there, mixture.apportion(size, list(there.values())) if there else (), strict=True))
    drawn = {share.lot.name: share.rows for share in plan.shares}
    assert {share.lot.name: share.wanted for share in plan.shares} == wanted
    for channel, some in drawn.items():
        enough = rows[channel] > 0 if again else rows[channel] >= wanted[channel]
        assert len(some) == (wanted[channel] if enough else rows[channel])
        assert again or len(set(names(some))) == len(some)
    if there and all(len(drawn[channel]) == wanted[channel] for channel in there):
        plan.check()
    else:
        with pytest.raises(InputError, match="too scarce" if there else "s has nothing to draw"):
            plan.check()

    numbers = plan.as_json()
    listed = {name: lot for part in numbers["tasks"].values() for name, lot in part["channels"].items()}
    if there:
        assert sum(Fraction(lot["share"]) for lot in listed.values()) == 1
        assert sum(Fraction(task["share"]) for task in numbers["tasks"].values()) == 1
    whole = sum(weights.values())
    assert numbers["left_out"] == {channel: str(Fraction(weights[channel], whole)) for channel in left}
    for one in listed:  # what is left out takes nothing of the ratio of the others
        for two in listed:
            ratio = Fraction(listed[one]["share"]) / Fraction(listed[two]["share"])
            assert ratio == Fraction(weights[one], weights[two])
    table = plan.table()
    shares = [round(100 * float(share)) for share in re.findall(r"(\d+\.\d\d) %  \w+\.", table)]
    assert sum(shares) == (10_000 if there else 0) and all(f"{channel} " in table for channel in weights)
    assert ("left out: " in table) == bool(left)

    for share in mixture.draw(mixtures, "s", folder, 2 * size).shares:
        assert names(share.rows)[: wanted[share.lot.name]] == names(drawn[share.lot.name])
    before = plan.rows
    for channel, count in rows.items():
        if count:
            write_channel(folder, channel, count, shuffle=2)
    assert mixture.draw(mixtures, "s", folder).rows == before
    assert Counter(names(before)) == Counter(pair for some in drawn.values() for pair in names(some))


def test_draws_with_replacement_are_like_those_of_dice(tmp_path, monkeypatch):
    """Every row as often as any other, each stage for itself, and none read more than once."""
    write_channel(tmp_path, "meld.mer", 40)
    stage = {"size": 4000, "replacement": True, "tasks": {"mer": {"sources": {"meld.mer": 1}}}}
    mixtures = mixtures_of(tmp_path, {"one": stage, "two": stage})
    read: list[int] = []
    ours = mixture.read_rows_at
    monkeypatch.setattr(mixture, "read_rows_at", lambda path, some: read.extend(some) or ours(path, some))
    one, two = (names(mixture.draw(mixtures, name, tmp_path).shares[0].rows) for name in ("one", "two"))
    assert len(read) == 80
    counts = Counter(one).values()
    # 100 of each on average; chi-square of 39 degrees of freedom, beyond 80 once in 10,000 seeds
    assert len(counts) == 40 and sum((count - 100) ** 2 / 100 for count in counts) < 80
    assert sum(a == b for a, b in zip(one, two, strict=True)) < 200, "a fortieth of them by chance"


def test_replacement_draws_from_what_earlier_stages_left(tmp_path):
    write_channel(tmp_path, "meld.mer", 30)
    first = {"size": 20, "tasks": {"mer": {"weight": 1, "sources": ["meld.mer"]}}}
    second = {"size": 50, "after": ["one"], "replacement": True, "tasks": {"mer": {"sources": {"meld.mer": 2}}}}
    third = {"size": 5, "after": ["two"], "tasks": {"mer": {"weight": 1, "sources": ["meld.mer"]}}}
    mixtures = mixtures_of(tmp_path, {"one": first, "two": second, "three": third})
    one, two, three = (mixture.draw(mixtures, name, tmp_path) for name in ("one", "two", "three"))
    assert len(two.rows) == 50 and not {*names(one.rows)} & {*names(two.rows)}
    assert not {*names(two.rows)} & {*names(three.rows)}, "a row that came again is taken, too"
    first["size"] = 30
    mixtures = mixtures_of(tmp_path, {"one": first, "two": second})
    with pytest.raises(InputError, match=r"two is too scarce: mer wants 50 rows and has 0 \(meld\.mer\); build its"):
        mixture.draw(mixtures, "two", tmp_path).check()


def test_rows_of_one_clip_in_two_parts_of_a_channel(tmp_path):
    """A sentiment with and without neutral: two rows of one id, drawn apart, whatever the order of the lines."""
    lines = [
        json.dumps({"id": f"meld/train/{i}", "channel": channel, "query": "q", "response": "r"})
        for i in range(20)
        for channel in ("meld.msa", "meld.msa.three")
    ]
    stage = {"size": 25, "tasks": {"msa": {"weight": 1, "sources": ["meld.msa"]}}}
    mixtures, draws = mixtures_of(tmp_path, {"s": stage}), []
    for order in (lines, lines[::-1]):
        (tmp_path / "meld.msa.train.jsonl").write_text("\n".join(order))
        draws.append(names(mixture.draw(mixtures, "s", tmp_path).rows))
    assert draws[0] == draws[1] and len(set(draws[0])) == 25
    (tmp_path / "meld.msa.train.jsonl").write_text("\n".join([*lines, lines[1]]))
    with pytest.raises(InputError, match=r"meld\.msa\.train\.jsonl:41: duplicate id meld/train/0"):
        mixture.draw(mixtures, "s", tmp_path)


def test_what_is_left_out_is_printed_with_its_share(tmp_path):
    for channel, count in (("mosei.msa", 60), ("meld.mer", 30), ("mosei.mer", 20), ("caer.mer", 0)):
        write_channel(tmp_path, channel, count)
    stage = {
        "size": 400,
        "replacement": True,
        "absent": "leave_out",
        "note": "general sets are not part of it",
        "tasks": {
            "msa": {"sources": {"mosei.msa": 3, "sims.msa": 1}},
            "mer": {"sources": {"meld.mer": 7, "mosei.mer": 1, "bold.mer": 3, "caer.mer": 1}},
        },
    }
    mixtures_of(tmp_path, {"s": stage})
    told = ("--stage", "s", "--mixtures", str(tmp_path / "mixtures.yaml"), "--data", str(tmp_path))
    done = plan(*told, "--json", str(tmp_path / "plan.json"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.partition("\n")[2] == (
        "task   weight     share  channel    available  wanted  drawn  per row\n"
        "msa         3   27.27 %  mosei.msa         60     109    109     1.82\n"
        "mer         7   63.64 %  meld.mer          30     255    255     8.50\n"
        "            1    9.09 %  mosei.mer         20      36     36     1.80\n"
        "total          100.00 %                           400    400\n"
        "left out: sims.msa 6.25 %, bold.mer 18.75 %, caer.mer 6.25 %; 31.25 % of the stage in all\n"
        "general sets are not part of it\n"
    )
    written = json.loads((tmp_path / "plan.json").read_text())
    assert written["left_out"] == {"sims.msa": "1/16", "bold.mer": "3/16", "caer.mer": "1/16"}
    assert written["tasks"]["mer"]["share"] == "8/11" and written["size"] == 400
    for file in tmp_path.glob("*.jsonl"):
        file.write_text("\n")
    done = plan(*told, "--json", str(tmp_path / "none.json"))
    assert done.returncode == 2 and not (tmp_path / "none.json").exists() and done.stderr.count("\n") == 1
    assert "s has nothing to draw: no channel of it has rows (mosei.msa, sims.msa, meld.mer, " in done.stderr
    assert "left out: mosei.msa 18.75 %" in done.stdout
    stage["absent"] = "refuse"
    mixtures_of(tmp_path, {"s": stage})
    done = plan(*told)
    assert done.returncode == 2 and "msa wants 75 rows and has 0 (mosei.msa); msa wants 25" in done.stderr


@pytest.mark.swift
def test_a_dataset_of_ms_swift_has_the_rows_of_a_weighted_stage(tmp_path, monkeypatch):
    from swift_plugins.dataset import read_subset, to_dataset

    write_channel(tmp_path, "meld.mer", 5)
    stage = {"size": 30, "replacement": True, "absent": "leave_out"}
    stage["tasks"] = {"mer": {"sources": {"meld.mer": 1, "mosei.mer": 2}}}
    mixtures_of(tmp_path, {"el2_some": stage})
    monkeypatch.setenv("AMT_MIXTURES", str(tmp_path / "mixtures.yaml"))
    rows, more = (read_subset("el2_some", tmp_path, size) for size in (None, 70))
    dataset = to_dataset(rows, tmp_path, solution=False)
    ids = list(dataset["id"])
    assert ids == [row["id"] for row in rows] and len(ids) == 30 and len(set(ids)) == 5
    assert not Counter(names(rows)) - Counter(names(more)) and len(more) == 70


def test_seed_changes_the_draw(tmp_path):
    write_channel(tmp_path, "mosei.msa", 200)
    draws = []
    for seed in (1, 2):
        path = tmp_path / "m.yaml"
        tasks = {"msa": {"weight": 1, "sources": ["mosei.msa"]}}
        path.write_text(yaml.safe_dump({"seed": seed, "stages": {"s": {"size": 20, "tasks": tasks}}}))
        draws.append({row["id"] for row in mixture.draw(mixture.read_mixtures(path), "s", tmp_path).rows})
    assert draws[0] != draws[1]


def test_a_stage_of_the_size_of_others_together(tmp_path):
    """Single-task training on as many rows as two stages see, where the task has fewer of its own."""
    write_channel(tmp_path, "meld.mer", 30)
    write_channel(tmp_path, "mosei.msa", 12)
    path = tmp_path / "m.yaml"
    stages = {
        "s1": {"size": 20, "tasks": {"mer": {"weight": 1, "sources": ["meld.mer"]}}},
        "s2": {"size": "scarcest", "after": ["s1"], "tasks": {"mer": {"weight": 1, "sources": ["meld.mer"]}}},
        "single": {
            "size": ["s1", "s2"],
            "tasks": {"msa": {"weight": 1, "sources": ["mosei.msa"], "oversample": True}},
        },
    }
    path.write_text(yaml.safe_dump({"stages": stages}))
    rows = mixture.draw(mixture.read_mixtures(path), "single", tmp_path).rows
    assert len(rows) == 30 and set(Counter(row["id"] for row in rows).values()) == {2, 3}
    for size, message in ((["s3"], "size names s3"), (["single"], "size names single"), ([], "neither")):
        path.write_text(yaml.safe_dump({"stages": stages | {"single": stages["single"] | {"size": size}}}))
        with pytest.raises(InputError, match=message):
            mixture.read_mixtures(path)


def test_the_environment_names_another_seed(tmp_path, monkeypatch):
    path = tmp_path / "m.yaml"
    path.write_text("seed: 5\nstages: {s: {size: 1, tasks: {mer: {weight: 1, sources: [meld.mer]}}}}\n")
    assert mixture.read_mixtures(path).seed == 5
    monkeypatch.setenv("AMT_SEED", "7")
    assert mixture.read_mixtures(path).seed == 7
    monkeypatch.setenv("AMT_SEED", "x")
    with pytest.raises(InputError, match="AMT_SEED=x is not a whole number"):
        mixture.read_mixtures(path)


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
        ("stages: {s: {tasks: {msa: {sources: [mosei.msa]}}}}", "s.tasks.msa.weight: missing key"),
        ("stages: {s: {tasks: {msa: {sources: {}}}}}", "msa.sources: Dictionary should have at least 1"),
        (
            "stages: {s: {tasks: {msa: {sources: {mosei.msa: 0}}}}}",
            "msa.sources.mosei.msa: Input should be greater than 0",
        ),
        (
            "stages: {s: {tasks: {msa: {sources: {mosei.msa: 1.5}}}}}",
            "msa.sources.mosei.msa: Input should be a valid integer",
        ),
        ("stages: {s: {tasks: {msa: {sources: {mosei.mer: 1}}}}}", "mosei.mer is not a channel <dataset>.msa"),
        (
            "stages: {s: {tasks: {msa: {weight: 2, sources: {mosei.msa: 1, meld.msa: 2}}}}}",
            "s.tasks.msa: weight is 2, but its sources add up to 3",
        ),
        (
            "stages: {s: {replacement: true, tasks: {msa: {sources: {mosei.msa: 1}}}}}",
            "stages.s: replacement needs a size that is a number",
        ),
        (
            "stages: {s: {replacement: true, size: 9, tasks: {msa: {sources: {mosei.msa: 1}, oversample: true}}}}",
            "msa: oversample repeats whole passes, replacement any row: give one of them",
        ),
        (
            "stages: {s: {absent: leave_out, tasks: {msa: {weight: 1, sources: [mosei.msa]}}}}",
            "msa: absent: leave_out needs a weight for each of its sources",
        ),
        (
            "stages: {s: {absent: maybe, tasks: {msa: {weight: 1, sources: [mosei.msa]}}}}",
            "s.absent: Input should be 'refuse' or 'leave_out', not 'maybe'",
        ),
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
