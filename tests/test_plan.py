"""The plan of a training: its formula against real models on a CPU, its steps against the length plan, the presets."""

import re

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import InternVLForConditionalGeneration

from benchmarks import plan
from benchmarks.internvl2_sizes import full_config, tiny_config
from swift_plugins import length_plan
from swift_plugins.files import CONFIGS, InputError
from swift_plugins.internvl2 import build_config
from tests import test_length_plan

made, tiny = test_length_plan.made, test_length_plan.model  # fixtures: rows, a checkpoint

FREE = {"padding_free": True, "packing": False, "lora_rank": 8, "lora_dropout": 0.05, "max_steps": -1}
FREE |= {"num_train_epochs": 2.0, "gradient_accumulation_steps": 1}


def settings(rows=1, checkpointing=True, **more):
    return FREE | {"per_device_train_batch_size": rows, "gradient_checkpointing": checkpointing} | more


@pytest.mark.parametrize("kind", ["phi3", "internlm2"])
def test_parameters_are_those_of_a_model(kind):
    config = build_config(full_config(kind), image_token_id=5)
    with torch.device("meta"):
        model = InternVLForConditionalGeneration._from_config(config, dtype=torch.bfloat16)
        tuned = get_peft_model(model, LoraConfig(r=8, target_modules=r".*language_model.*_proj"))
    counted = plan.Model.of(config)
    trained = sum(p.numel() for p in tuned.parameters() if p.requires_grad)
    assert counted.lora(8) == trained
    named = dict(model.model.named_children()) | {"head": model.lm_head}
    sizes = {
        name: sum(p.numel() for n, p in part.named_parameters() if "lora" not in n) for name, part in named.items()
    }
    assert counted.projector == sizes["multi_modal_projector"] and counted.head == sizes["head"]
    assert counted.tower == pytest.approx(sizes["vision_tower"], rel=1e-5)
    assert counted.parameters == pytest.approx(sum(sizes.values()), rel=1e-5)


def kept_bytes(kind, tokens, dropout, checkpointing):
    """(bytes that autograd keeps of a forward pass, the plan's) for a small model under bf16, parameters aside."""
    config = tiny_config(kind)
    config["llm_config"] |= {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "vocab_size": 512}
    if kind == "phi3":
        scaling = config["llm_config"]["rope_scaling"]
        scaling |= {"short_factor": [1.0] * 24, "long_factor": [2.0] * 24}
    torch.manual_seed(0)
    config = build_config(config, image_token_id=5)
    model = InternVLForConditionalGeneration._from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
    model.config.use_cache = False
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    lora = LoraConfig(
        r=8,
        lora_dropout=dropout,
        target_modules=r".*language_model.*_proj",
        modules_to_save=["multi_modal_projector"],
    )
    model = get_peft_model(model, lora).train()
    visual = 4 * config.image_seq_length
    ids = torch.randint(10, 200, (1, tokens))
    ids[:, :visual] = 5
    pixels = torch.randn(4, 3, 56, 56, dtype=torch.bfloat16)
    mine = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in mine and tensor.data_ptr():
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # the tensor, so that its address is not used again
        return tensor

    answered = 10
    places = torch.arange(tokens - answered, tokens)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=ids, pixel_values=pixels, logits_to_keep=places).logits
        loss = torch.nn.functional.cross_entropy(logits.float()[0], ids[0, places])
    found = sum(size for size, _ in kept.values())
    loss.backward()
    sizes = plan.Model.of(config)
    layer = sizes.layer_bytes(8, dropout > 0, mask=4)
    return found, sizes.kept(tokens, visual, answered, checkpointing, layer)


@pytest.mark.parametrize("kind", ["phi3", "internlm2"])
@pytest.mark.parametrize("dropout", [0.0, 0.05])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_kept_activations_are_those_that_autograd_keeps(kind, dropout, checkpointing):
    found, planned = kept_bytes(kind, 384, dropout, checkpointing)
    print(f"{kind}, dropout {dropout}, checkpointing {checkpointing}: {planned / found:.3f}")
    assert planned / found == pytest.approx(1, abs=0.02)


def test_memory_and_time_grow_with_what_they_are_made_of():
    model, larger = plan.model_of("4b"), plan.model_of("8b")
    rows = [(2560, 2048)] * 100
    gpu = plan.GPUS["a100-80"]

    def memory(rows_at_a_time=1, of=model, **more):
        return sum(plan.need(of, rows, settings(rows_at_a_time, **more)).values())

    assert memory() < memory(2) < memory(4) < memory(4, checkpointing=False) < memory(4, larger, checkpointing=False)
    assert memory(4, checkpointing=False, lora_dropout=0.0) < memory(4, checkpointing=False)
    # Without padding, rows together are as long as their sum; with it, each as long as the longest.
    mixed = [(2560, 2048), (360, 256)]
    assert plan.together(mixed, settings(2)) == (2920, 2304)
    assert plan.together(mixed, settings(2, padding_free=False)) == (5120, 2304)
    fit = [plan.fitting(model, rows, settings(checkpointing=again), gpu) for again in (False, True)]
    assert 1 <= fit[0] < fit[1]
    assert memory(fit[0], checkpointing=False) <= 72 < memory(fit[0] + 1, checkpointing=False)  # 80 GB less 10 %

    stage = plan.Stage(rows, 0, "")
    hours = plan.hours(model, stage, settings(checkpointing=False), gpu, 0.4)
    assert plan.hours(model, stage, settings(checkpointing=False), gpu, 0.2) == pytest.approx(2 * hours)
    assert 1.4 < plan.hours(model, stage, settings(), gpu, 0.4) / hours < 1.5  # three passes for two, and the tower
    # By hand: 2 epochs of 100 rows; 4 operations a token and frozen parameter are most of it.
    least = 2 * 256_000 * 4 * 3.6e9 / (312e12 * 0.4) / 3600
    assert least < hours < 1.4 * least


def test_time_is_shared_by_processes_and_ends_with_max_steps(monkeypatch):
    model, gpu = plan.model_of("4b"), plan.GPUS["h100"]
    stage = plan.Stage([(360, 256)] * 80, 0, "")
    whole = plan.hours(model, stage, settings(8), gpu, 0.4)
    assert plan.hours(model, stage, settings(8, max_steps=5), gpu, 0.4) == pytest.approx(whole / 4)  # 10 an epoch
    monkeypatch.setenv("NPROC_PER_NODE", "2")
    assert plan.hours(model, stage, settings(4), gpu, 0.4) == pytest.approx(whole / 2)


@pytest.mark.swift
@pytest.mark.parametrize("gpu, preset", [("rtx3090", "24gb"), ("a6000", "48gb"), ("h100", "80gb"), ("h200", "140gb")])
def test_a_preset_fits_its_gpu_and_no_more_rows_at_a_time_would(gpu, preset):
    """4B as the preset has it, 8B with the flags that its comment names; the comment's figures are the formula's."""
    text = (CONFIGS / "presets" / f"{preset}.yaml").read_text(encoding="utf-8")
    claims = re.findall(r"([48])B(?: with (--\w+) (\w+))?: (\d+) of (\d+) GB", text)
    assert [size for size, *_ in claims] == ["4", "8"]
    for size, *flags, used, of in claims:
        model = plan.model_of(f"{size}b")
        needed = []
        for stage in ("stage1", "stage2"):
            values = plan.read_settings(CONFIGS / f"emoverse-{size}b", stage, preset, [flag for flag in flags if flag])
            rows = plan.from_paper(stage, model).rows
            needed.append(sum(plan.need(model, rows, values).values()))
            assert values["per_device_train_batch_size"] * values["gradient_accumulation_steps"] == 8
        assert (int(used), int(of)) == (round(max(needed)), plan.GPUS[gpu].memory) and max(needed) <= 0.9 * int(of)
        most = plan.fitting(model, rows, values, plan.GPUS[gpu])
        assert size == "8" or values["per_device_train_batch_size"] == max(n for n in (1, 2, 4, 8) if n <= most)


@pytest.mark.swift
def test_the_plan_of_rows_is_that_of_the_length_plan(made, tiny, tmp_path, capsys, monkeypatch):
    """Rows, tokens and steps of AMT files; and that memory and time are called estimates."""
    length_plan.plan(tiny, str(made / "config"), str(made / "amt"), report_folder=tmp_path)
    told = capsys.readouterr().out
    command = ["plan", str(made / "config"), "--gpu", "rtx3090", "--model", str(tiny), "--data", str(made / "amt")]
    monkeypatch.setattr("sys.argv", command)
    assert plan.main() == 0
    planned = capsys.readouterr().out
    for stage in ("stage1", "stage2"):
        counts = re.search(rf"{stage}: (.+ samples), (.+ tokens an epoch), (\d+ steps)", told).groups()
        part = planned[planned.index(stage) :]
        assert all(count.replace("samples", "rows") in part for count in counts)
    assert "1 prepared clips" in planned and planned.count("memory, estimated") == planned.count("time, estimated") == 2


@pytest.mark.swift
def test_rows_that_come_again_are_planned(made, tiny, tmp_path, monkeypatch):
    test_length_plan.again(tmp_path, monkeypatch)
    config = made / "config"
    values = plan.read_settings(config, "stage1", None, [])
    stage = plan.from_data("again", tiny, config, made / "amt", values)
    assert len(stage.rows) == 60 and len(set(stage.rows)) <= 6


@pytest.mark.swift
def test_what_does_not_fit_gives_status_one(capsys, monkeypatch):
    command = ["plan", "emoverse-8b", "--gpu", "rtx3090", "--preset", "24gb", "--", "--gradient_checkpointing", "false"]
    monkeypatch.setattr("sys.argv", command)
    assert plan.main() == 1
    assert "DOES NOT FIT" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["none"], "none: is neither a folder of configs/ nor a folder"),
        (["demo"], "demo: is of no known size: add --model DIR, 4b or 8b"),
        (["demo", "--model", "5b"], "5b: is neither 4b nor 8b nor a model folder: it holds no config.json"),
        (["emoverse-4b", "--data", "."], "--data needs --model DIR: tokens are counted with its tokenizer"),
        (["emoverse-4b", "--utilisation", "2"], "--utilisation must be above 0 and at most 1, not 2"),
    ],
)
def test_what_cannot_be_planned(monkeypatch, arguments, message):
    monkeypatch.setattr("sys.argv", ["plan", *arguments, "--gpu", "h100"])
    with pytest.raises(InputError) as refused:
        plan.main()
    assert str(refused.value) == message
