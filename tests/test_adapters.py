"""LoRA on the language model, the projector in full, the ViT untouched: by name, for every backbone and its configs.

Each config is run as it is, on a tiny random model of its architecture; only what a CPU lacks is overridden.
"""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, Qwen2_5OmniThinkerForConditionalGeneration

import swift_plugins.emoverse  # noqa: F401
from tests.tiny_amt import ROWS, tiny_amt
from tests.tiny_backbones import tiny_backbone
from tests.tiny_internvl2 import tiny_checkpoint

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
CPU = ["--torch_dtype", "float32", "--bf16", "false", "--dataloader_num_workers", "0", "--max_steps", "2"]
CPU += ["--save_steps", "2", "--gradient_accumulation_steps", "2", "--report_to", "none", "--learning_rate", "0.01"]

# What a layer number stands in for: N.
PHI3 = ["mlp.down_proj", "mlp.gate_up_proj", "self_attn.o_proj", "self_attn.qkv_proj"]
LLAMA = ["mlp.down_proj", "mlp.gate_proj", "mlp.up_proj"] + [f"self_attn.{x}_proj" for x in "kqvo"]
INTERNVL = [
    f"multi_modal_projector.{m}.{p}" for m in ("layer_norm", "linear_1", "linear_2") for p in ("bias", "weight")
]
MERGER = [f"visual.merger.{m}.{p}" for m in ("mlp.0", "mlp.2") for p in ("bias", "weight")] + [
    "visual.merger.ln_q.weight"
]
PARTS = [f"{m}.{p}" for m in ("linear_fc1", "linear_fc2", "norm") for p in ("bias", "weight")]
DEEPSTACK = [f"visual.{m}.{p}" for m in ("merger", "deepstack_merger_list.N") for p in PARTS]
BACKBONES = {  # config folder: LoRA inside a language model's layer, projector parameters
    "emoverse-4b": (PHI3, INTERNVL),
    "emoverse-8b": (LLAMA, INTERNVL),
    "internvl3.5-hf": (LLAMA, INTERNVL),
    "qwen2.5-vl": (LLAMA, MERGER),
    "qwen3-vl": (LLAMA, DEEPSTACK),
    "qwen2.5-omni": (LLAMA, [*MERGER, "audio_tower.proj.bias", "audio_tower.proj.weight"]),
}
# Qwen2.5-Omni is a pair, one that thinks and one that speaks: where the language model of the first is, and its name.
PLACES = {"qwen2.5-omni": ("thinker.", "model")}


def checkpoint(folder, name):
    kinds = {"emoverse-4b": "phi3", "emoverse-8b": "internlm2"}
    return tiny_checkpoint(folder, kinds[name]) if name in kinds else tiny_backbone(folder, name)


def swift(config, *flags):
    """Arguments as `swift sft|infer CONFIG FLAGS` makes them."""
    from swift.cli.main import parse_yaml_args

    argv = [str(config), *map(str, flags)]
    parse_yaml_args(argv)
    return argv


def by_number(names):
    return sorted({re.sub(r"\.(layers|deepstack_merger_list)\.\d+\.", r".\1.N.", name) for name in names})


def expected(name):
    lora, projector = BACKBONES[name]
    root, language = PLACES.get(name, ("model.", "language_model"))
    prefix = f"base_model.model.{root}"
    names = [f"{prefix}{language}.layers.N.{m}.lora_{ab}.default.weight" for m in lora for ab in "AB"]
    modules = ("multi_modal_projector", "deepstack_merger_list.N", "merger", "audio_tower.proj")
    for parameter in projector:
        module = next(m for m in modules if m in parameter)
        names.append(prefix + parameter.replace(module, f"{module}.modules_to_save.default", 1))
    return sorted(names)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_amt(tmp_path_factory.mktemp("adapters") / "amt")


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    return tiny_amt(tmp_path_factory.mktemp("adapters") / "heard", sound=True)


@pytest.fixture(params=BACKBONES, ids=BACKBONES.keys())
def backbone(request, tmp_path, monkeypatch):
    data = request.getfixturevalue("heard" if request.param == "qwen2.5-omni" else "data")
    for key, value in {"AMT_DATA": data, "AMT_MEDIA": data, "AMT_MIXTURES": data / "mixtures.yaml"}.items():
        monkeypatch.setenv(key, str(value))
    monkeypatch.setenv("VIDEO_SEGMENTS", "2")  # tiny models take as long over 448 pixels as large ones do to start
    monkeypatch.setenv("SWIFT_CONFIG_FILE", "")
    return request.param, checkpoint(tmp_path / "model", request.param)


@pytest.mark.swift
def test_both_stages_inference_and_merge(backbone, tmp_path):
    """Stage 1, stage 2 on its adapter, answers on every test channel, one merged folder for stock transformers."""
    from swift.pipelines import SwiftSft, export_main, infer_main

    name, model = backbone
    common = ["--model", model, *CPU]
    first = SwiftSft(swift(CONFIGS / name / "stage1.yaml", *common, "--output_dir", tmp_path / "stage1"))
    first.main()
    trainable = [key for key, parameter in first.model.named_parameters() if parameter.requires_grad]
    assert by_number(trainable) == expected(name)
    frozen = {key: value for key, value in first.model.state_dict().items() if "lora_" not in key}

    one = tmp_path / "stage1" / "checkpoint-2"
    flags = [*common, "--adapters", one, "--output_dir", tmp_path / "stage2"]
    second = SwiftSft(swift(CONFIGS / name / "stage2.yaml", *flags))
    second.main()
    assert by_number(k for k, p in second.model.named_parameters() if p.requires_grad) == by_number(trainable)
    moved = {k for k, v in second.model.state_dict().items() if k in frozen and not torch.equal(v, frozen[k])}
    assert moved and all("modules_to_save" in key for key in moved), "only the projector and LoRA move"
    two = tmp_path / "stage2" / "checkpoint-2"
    assert json.loads((two / "adapter_config.json").read_text())["r"] == 8
    weights = [load_file(folder / "adapter_model.safetensors") for folder in (one, two)]
    assert weights[0].keys() == weights[1].keys(), "the same adapter went on training"
    assert all(bool(tensor.any()) for key, tensor in weights[1].items() if "lora_B" in key)

    result = tmp_path / "answers.jsonl"
    flags = ["--adapters", two, "--torch_dtype", "float32", "--max_new_tokens", "4", "--result_path", result]
    infer_main(swift(CONFIGS / name / "infer.yaml", *flags))
    rows = [json.loads(line) for line in result.read_text().splitlines()]
    assert sorted({row["channel"] for row in rows}) == sorted(ROWS) and len(rows) == 2 * len(ROWS)

    merged = tmp_path / "merged"
    export_main(["--adapters", str(two), "--merge_lora", "true", "--output_dir", str(merged)])
    thinks = name == "qwen2.5-omni"
    stock_class = Qwen2_5OmniThinkerForConditionalGeneration if thinks else AutoModelForImageTextToText
    stock, report = stock_class.from_pretrained(merged, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    tuned = second.model.merge_and_unload().state_dict()
    root = "thinker." * thinks
    assert all(torch.allclose(value, tuned[root + key], atol=1e-6) for key, value in stock.state_dict().items())


@pytest.mark.swift
@pytest.mark.parametrize("backbone", ["qwen2.5-vl", "qwen3-vl", "qwen2.5-omni"], indirect=True)
def test_streamed_rows_train_like_rows_in_memory(backbone, tmp_path):
    """Rows with pictures and without, a foreign one before them, alone in a batch and side by side: the same losses,
    step by step."""
    from swift.pipelines import SwiftSft

    name, model = backbone
    losses, own = {}, tmp_path / "own.jsonl"
    chat = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hi."}]
    own.write_text(json.dumps({"messages": chat}) + "\n")
    for size, steps in ((1, 6), (3, 2)):
        for streaming in ("false", "true"):
            out = tmp_path / f"{streaming}{size}"
            flags = ["--model", model, *CPU, "--save_strategy", "no", "--logging_steps", "1", "--output_dir", out]
            flags += ["--dataset_shuffle", "false", "--train_dataloader_shuffle", "false", "--streaming", streaming]
            flags += ["--per_device_train_batch_size", size, "--max_steps", steps, "--lora_dropout", "0"]
            flags += ["--dataset", own, "amt:stage1"]
            SwiftSft(swift(CONFIGS / name / "stage1.yaml", *flags, "--gradient_accumulation_steps", "1")).main()
            log = [json.loads(line) for line in (out / "logging.jsonl").read_text().splitlines()]
            losses[streaming] = [row["loss"] for row in log if "loss" in row]
            names = {name for row in log for name in row if name.startswith("loss_")}
            assert {"loss_other", "loss_mosei.msa", "loss_mosei.fer"} <= names and "loss_None" not in names
        assert losses["true"] == losses["false"] and len(losses["true"]) == steps
