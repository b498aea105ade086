"""Every file under configs/ is read by what reads it for a user: ms-swift's own argument parser, or our loaders."""

from __future__ import annotations

import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
import yaml

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
DATASETS = sorted(CONFIGS.glob("datasets/*.yaml"))
PRESETS = sorted(CONFIGS.glob("presets/*.yaml"))
OURS = ("mixtures.yaml", "prompts.yaml", "ablation.yaml")
SWIFT = sorted(p for p in CONFIGS.glob("*/*.yaml") if p.name not in OURS and p not in (*DATASETS, *PRESETS))
STAGES = [p for p in SWIFT if p.stem in ("stage1", "stage2")]
PAPER = [p for p in STAGES if p.parent.name.startswith("emoverse")]
MIXTURES = sorted(CONFIGS.glob("**/mixtures.yaml"))
OWN = {"prompts.yaml", "au_columns.yaml", "facs.yaml", "mixtures.yaml", "eri.yaml", "judge.yaml", "published.yaml"}
OWN |= {"mmeverse.yaml", "ablation.yaml"}


def ids(paths):
    return [str(p.relative_to(CONFIGS)) for p in paths]


def arguments(path: Path, *flags: str):
    """What `swift sft|infer|rlhf FILE FLAGS` makes of the file, before any model is looked at."""
    from swift.arguments import InferArguments, RLHFArguments, SftArguments
    from swift.cli.main import parse_yaml_args
    from transformers import HfArgumentParser

    kind = {"infer": InferArguments, "grpo": RLHFArguments}.get(path.stem, SftArguments)
    argv = [str(path), *flags]
    parse_yaml_args(argv)
    parsed, unknown = HfArgumentParser(kind).parse_known_args(argv)
    assert unknown == [], f"{kind.__name__} does not know {unknown}"
    return parsed


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("**/prompts.yaml")), ids=lambda path: path.parent.name)
def test_a_wording_is_read(path):
    from data_prep import prompts

    assert prompts.load(path).tasks.keys() == {"mer", "fer", "eri", "msa", "ecpe"} | prompts.load(path).tasks.keys()


def test_no_config_is_forgotten():
    top = {p.name for p in CONFIGS.glob("*.yaml")}
    assert top <= OWN, "a new kind of file needs its own test here"


@pytest.mark.slow
@pytest.mark.parametrize("path", SWIFT, ids=ids(SWIFT))
def test_swift_parses(path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["swift"])
    monkeypatch.delenv("SWIFT_CONFIG_FILE", raising=False)
    arguments(path)


@pytest.mark.slow
@pytest.mark.parametrize("path", PRESETS, ids=ids(PRESETS))
@pytest.mark.parametrize("processes", [1, 2])
def test_a_preset_keeps_the_rows_of_a_step(path, processes, monkeypatch):
    """Whatever runs at a time on however many GPUs, a step of the paper's configuration has its 8 rows."""
    from swift_plugins import batches

    monkeypatch.setattr(sys, "argv", ["swift"])
    args = arguments(PAPER[0], *batches.flags(path.stem, 1, 8, processes))
    assert args.per_device_train_batch_size * args.gradient_accumulation_steps * processes == 8
    assert (args.padding_free, args.attn_impl) == (True, "varlen")


@pytest.mark.slow
@pytest.mark.parametrize("path", STAGES, ids=ids(STAGES))
def test_adapters_as_in_the_paper(path):
    """EmoVerse, section 5.2: LoRA r 8 alpha 32 on the LLM, the projector in full, the ViT frozen; channel loss on.
    Emotion-LLaMA and its v2 have r 64, alpha 16 (128 in their demos), and mixtures of their own."""
    args = arguments(path)
    theirs = args.model_type == "emotion_llama"
    alpha = 128 if theirs and path.parent.name.endswith("-demo") else 16  # a random base has more to learn
    assert (args.tuner_type, args.lora_rank, args.lora_alpha) == ("lora", *((64, alpha) if theirs else (8, 32)))
    assert args.freeze_vit and args.freeze_aligner
    assert bool(args.modules_to_save) == (path.parent.name != "small"), "its rows are text: none reaches a projector"
    assert args.enable_channel_loss and args.strict
    assert args.dataset == [f"amt:{path.stem}"] or (theirs and args.dataset[0].startswith("amt:el"))
    assert args.fp16 is False, "left out, fp16 would be on"


@pytest.mark.slow
@pytest.mark.parametrize("path", PAPER, ids=ids(PAPER))
def test_hyperparameters_of_the_paper(path):
    args = arguments(path)
    assert (args.learning_rate, args.num_train_epochs, str(args.lr_scheduler_type)) == (1e-5, 2, "cosine")
    assert args.warmup_ratio > 0
    assert args.per_device_train_batch_size * args.gradient_accumulation_steps == 8
    assert args.gradient_checkpointing and args.bf16


@pytest.mark.parametrize("folder", sorted({p.parent for p in STAGES}), ids=lambda p: p.name)
def test_both_stages_differ_in_their_data_only(folder):
    first, second = (yaml.safe_load((folder / f"stage{n}.yaml").read_text()) for n in (1, 2))
    training = {"dataset", "num_train_epochs", "learning_rate", "warmup_ratio", "max_length"}
    if first["model_type"] == "emotion_llama":  # whose second stage keeps one learning rate
        training |= {"lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps"}
    assert {k for k in first.keys() | second.keys() if first.get(k) != second.get(k)} <= training
    assert (folder / "infer.yaml").is_file()


@pytest.mark.parametrize("path", MIXTURES, ids=ids(MIXTURES))
def test_mixtures(path):
    from swift_plugins.mixture import read_mixtures

    stages = read_mixtures(path).stages
    sources = {name: {task: part.sources for task, part in stage.tasks.items()} for name, stage in stages.items()}
    if path.parent.name not in ("demo", "ablation-demo", "small"):
        assert sources["el_coarse"] == {"mer": ["merr_coarse.mer"], "eri": ["merr_coarse.eri"]}
        assert sources["el_fine"] == {"eri": ["merr.eri"]}
    if path.parent.name == "emotion-llama-demo":  # has no others
        return
    ratios = {name: {task: part.weight for task, part in stages[name].tasks.items()} for name in ("stage1", "stage2")}
    paper = {"stage1": {"msa": 6, "fer": 3, "mer": 1}, "stage2": {"mer": 3, "eri": 3, "ecpe": 3, "msa": 1}}
    absent = {"fer", "eri"} if path.parent.name == "small" else set()  # it has real text only
    assert ratios == {name: {t: w for t, w in tasks.items() if t not in absent} for name, tasks in paper.items()}
    assert stages["stage2"].after == ["stage1"]


def test_small_variants_are_of_one_size():
    """Table 5 compares M2SE with single tasks of as many rows, Table 3 second stages that forget for equally long."""
    from swift_plugins.mixture import read_mixtures

    sizes = {name: stage.size for name, stage in read_mixtures(CONFIGS / "small" / "mixtures.yaml").stages.items()}
    assert all(sizes[name] == ["stage1", "stage2"] for name in sizes if name.startswith("single"))
    assert len({sizes[name] for name in sizes if name.startswith("stage1")}) == 1
    assert len({sizes[name] for name in sizes if name.startswith("stage2")}) == 1


SETS = {  # what a set is drawn by, as Emotion-LLaMAv2 was trained, and its label tasks
    "mer2023": (60, ["mer"]),
    "caer": (135, ["mer"]),
    "dfew": (135, ["mer"]),
    "mc_eiu": (120, ["mer", "intent"]),
    "mafw": (105, ["mer", "mlmer"]),
    "bold": (135, ["mlmer"]),
    "e3": (195, ["mer"]),
    "iemocap": (120, ["mer"]),
    "ch_sims_v2_s": (60, ["msa"]),
    "mosei": (240, ["msa"]),
    "cmu_mosi": (45, ["msa"]),
    "meld": (150, ["mer", "msa"]),
}


@pytest.mark.parametrize(
    "name, then, weights, twice, whole, general",
    [
        ("el2_perception", ["audio", "image"], {}, {}, 2041, "26.5 %"),
        ("el2_cognition", ["eri", "think"], {"mc_eiu": 150}, {"mc_eiu": "intent", "mafw": "think"}, 2237, "31.6 %"),
    ],
)
def test_the_curriculum_of_emotion_llama_v2(name, then, weights, twice, whole, general):
    """A set by its weight, then a task of its pool, each as likely as the others."""
    from swift_plugins.mixture import read_mixtures

    stage = read_mixtures(CONFIGS / "mixtures.yaml").stages[name]
    drawn = {dataset: weights.get(dataset, weight) for dataset, (weight, _) in SETS.items()}
    expected: Counter = Counter()
    for dataset, (_, labels) in SETS.items():
        pool = [*labels, *then, *([twice[dataset]] if dataset in twice else [])]
        for task in pool:
            expected[f"{dataset}.{task}"] += Fraction(drawn[dataset], len(pool) * sum(drawn.values()))
    total = sum(lot.weight for lot in stage.lots)
    assert {lot.name: Fraction(lot.weight, total) for lot in stage.lots} == expected
    assert sum(expected.values()) == 1
    assert stage.replacement and stage.absent == "leave_out" and stage.size == 10 * 5000 * 4 and not stage.after
    assert general in stage.note and f"{100 * (1 - sum(drawn.values()) / whole):.1f} %" == general


def test_system_turn_is_one_text():
    """configs/prompts.yaml holds it; a config for a backbone with its own template repeats it, and must not drift."""
    system = yaml.safe_load((CONFIGS / "prompts.yaml").read_text(encoding="utf-8"))["system"]
    for path in SWIFT:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.stem in ("stage1", "stage2"):
            ours = config["model_type"] in ("emoverse", "emotion_llama")  # the latter knows none
            assert ("system" not in config) if ours else config["system"] == system, path


def test_every_declared_dataset_is_a_dataset():
    from data_prep.readers import READERS
    from swift_plugins.tasks import TASKS

    for path in DATASETS:
        tasks = READERS[path.stem].TASKS
        assert tasks and all(path.stem in TASKS[task].labels for task in tasks), path


def test_every_set_of_mmeverse_can_be_scored():
    """Its test rows by the metric that is named: open words on wheels, others by the task that has its labels."""
    from swift_plugins.mmeverse import SETS
    from swift_plugins.scoring.results import scored_as
    from swift_plugins.tasks import TASKS

    for name, described in SETS.items():
        for key, metric in described.metric.items():
            asked = {"hit_rate": "ov", "set_f": "ov", "sentiment": "msa.three"}.get(metric, key)
            assert scored_as(f"{name}.{asked}") == (f"{name}.{asked}", ""), (name, key)
            labels = TASKS[key].of_part("three" if key == "msa" else "").labels.get(name, ())
            assert {label.lower() for label in described.labels.get(key, ())} <= {label.lower() for label in labels}
