"""Batches of every form train alike: row by row, padded, laid end to end without padding, from prepared clips, and from
what the vision tower saw before."""

import numpy as np
import pytest
import torch
from PIL import Image
from swift.dataset import AddLengthPreprocessor
from swift.model import get_model_processor
from swift.template import get_template

import swift_plugins.emoverse  # noqa: F401
from swift_plugins import batches, likelihood, packing, shares
from swift_plugins.features import Features
from swift_plugins.files import InputError, write_rows
from swift_plugins.internvl2 import native_config
from swift_plugins.length_plan import processes
from swift_plugins.media_cache import GB, MediaCache
from swift_plugins.shares import cut
from swift_plugins.template import about_tokens
from tests.conftest import in_process
from tests.test_adapters import CONFIGS, CPU, swift
from tests.test_frames import write_clip
from tests.test_template import row
from tests.tiny_amt import tiny_amt
from tests.tiny_backbones import tiny_backbone
from tests.tiny_internvl2 import tiny_checkpoint

ONE = "one row at a time"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Rows of every medium, lengths between 40 and 200 tokens, several turns in one."""
    folder = tmp_path_factory.mktemp("media")
    clip, peak = str(write_clip(folder / "clip.mp4")), str(folder / "peak.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)).save(peak)
    several = row("And <image>?", "Surprise.", images=[peak])
    several["messages"] = [*row("Who?", "Me.")["messages"], *several["messages"]]
    return [
        row("<video>\nWhat does this person feel?", "Sadness.", videos=[clip]),
        row("No picture."),
        row("<image>Which movement?", "It shows a smile; raised cheeks.", images=[peak]),
        several,
        row("<video>and once more<video>", "Joy.", videos=[clip, clip]),
    ]


def seen_before(folder, rows, out, *kinds):
    """The features of all videos or images of the rows."""
    data, common = out.with_suffix(".amt"), {"channel": "meld.mer", "query": "", "response": ""}
    media = [{kind: row[kind] for kind in kinds if kind in row} for row in rows]
    data.mkdir()
    write_rows(data / "meld.mer.train.jsonl", ({"id": str(i), **common, **named} for i, named in enumerate(media)))
    done = in_process("-m", "data_prep.features", "--model", folder, "--data", data, "--out", out)
    assert done.returncode == 0, done.stderr
    return Features(out, folder, native_config(folder), torch.float32)


def gradients(folder, rows, form, attention, window=None, cache=None, features=None):
    """(loss, every gradient by name, whether the tower looked) of one optimiser step over the rows: ms-swift divides by
    their answered tokens."""
    model, processor = get_model_processor(
        str(folder), model_type="emoverse", torch_dtype=torch.float32, attn_impl=attention
    )
    if window:
        model.config.text_config.sliding_window = window
    template = get_template(processor, padding_free=form == "padding-free")
    template.set_mode("train")
    template.media_cache, template.features = cache, features
    encoded = [template.encode(data, return_length=True) for data in rows]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("vision_tower" not in name)
    looks, total = [], 0.0
    model.model.vision_tower.register_forward_hook(lambda *_: looks.append(1))
    answered = sum(sum(label != -100 for label in data["labels"][1:]) for data in encoded)
    for batch in [[data] for data in encoded] if form == ONE else [encoded]:
        inputs = template.pre_forward_hook(model, None, template.data_collator(batch))[1]
        labels = inputs.pop("labels")
        logits = model(**inputs).logits[:, :-1].flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum") / answered
        loss.backward()
        total += loss.item()
    return total, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, bool(looks)


@pytest.mark.swift
@pytest.mark.parametrize(
    "kind, window",
    [("phi3", None), ("phi3", 24), ("internlm2", None)],
    ids=["phi3", "phi3 that looks back 24 tokens", "internlm2, grouped keys"],
)
def test_loss_and_gradients_are_those_of_one_row_at_a_time(tmp_path, rows, kind, window):
    folder = tiny_checkpoint(tmp_path / "model", kind)
    cache = MediaCache(tmp_path / "cache", GB)
    loss, expected, _ = gradients(folder, rows, ONE, "sdpa", window)
    assert len(expected) > 10 and all(gradient.abs().max() > 0 for gradient in expected.values())
    clips, everything = (
        seen_before(folder, rows, tmp_path / "-".join(kinds), *kinds) for kinds in (["videos"], ["videos", "images"])
    )
    for form, attention, prepared, features in [
        ("padded", "sdpa", None, None),
        ("padding-free", packing.NAME, None, None),
        ("padding-free", packing.NAME, cache, None),  # fills the cache
        ("padding-free", packing.NAME, cache, None),
        (ONE, "sdpa", cache, None),
        ("padded", "sdpa", None, clips),  # of the others the pixels
        ("padding-free", packing.NAME, None, clips),
        ("padding-free", packing.NAME, None, everything),
        (ONE, "sdpa", None, everything),
    ]:
        found, ours, looked = gradients(folder, rows, form, attention, window, prepared, features)
        assert found == pytest.approx(loss, rel=1e-5), (form, attention)
        assert looked == (features is not everything)
        for name, gradient in expected.items():
            assert torch.allclose(ours[name], gradient, rtol=1e-4, atol=1e-5 * gradient.abs().max()), (form, name)
    assert len(list((tmp_path / "cache").glob("*/*.safetensors"))) == 1, "one clip"


@pytest.mark.swift
@pytest.mark.parametrize("kind", ["qwen2.5-vl", "qwen3-vl"])
def test_a_step_in_passes_of_like_length_is_the_step(tmp_path, monkeypatch, rows, kind):
    """Of padded batches, and less padding."""
    monkeypatch.setenv("VIDEO_SEGMENTS", "2")
    folder = tiny_backbone(tmp_path / "model", kind)
    name = f"emoverse_{kind.replace('.', '_').replace('-', '_')}"
    model, processor = get_model_processor(str(folder), model_type=name, torch_dtype=torch.float32)
    template = get_template(processor)
    template.model = model
    template.set_mode("train")
    encoded = [template.encode(data, return_length=True) for data in rows]
    answered = sum(sum(label != -100 for label in data["labels"][1:]) for data in encoded)
    lengths = [about_tokens(template, data) for data in rows]
    found = []
    for batches_of_step in (
        [[i] for i in range(5)],
        [[0, 1], [2, 3], [4]],
        [s[0] for s in cut(range(5), lengths, 1, 2)],
    ):
        model.zero_grad()
        total, tokens = 0.0, 0
        for batch in batches_of_step:
            inputs = template.pre_forward_hook(model, None, template.data_collator([encoded[i] for i in batch]))[1]
            labels = inputs.pop("labels")
            tokens += labels.numel()
            logits = model(**inputs).logits[:, :-1].flatten(0, 1)
            loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum") / answered
            loss.backward()
            total += loss.item()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        found.append((total, gradients, tokens))
    (loss, expected, _), *others = found
    assert others[1][2] < others[0][2]
    for total, gradients, _ in others:
        assert total == pytest.approx(loss, rel=1e-5)
        for name, gradient in expected.items():
            assert torch.allclose(gradients[name], gradient, rtol=1e-4, atol=1e-5 * gradient.abs().max()), name


@pytest.mark.swift
@pytest.mark.parametrize("more, passes", [([], 2), (["--padding_free", "true", "--attn_impl", packing.NAME], None)])
def test_training_cuts_the_steps_of_padded_batches(tmp_path, monkeypatch, more, passes):
    """With the settings of the run; rows without padding stay in their order."""
    from swift.pipelines import SwiftSft

    data = tiny_amt(tmp_path / "amt")
    for key, value in {"AMT_DATA": data, "AMT_MEDIA": data, "AMT_MIXTURES": data / "mixtures.yaml"}.items():
        monkeypatch.setenv(key, str(value))
    monkeypatch.setenv("VIDEO_SEGMENTS", "2")
    monkeypatch.setenv("SWIFT_CONFIG_FILE", "")
    steps = []
    monkeypatch.setattr(shares, "cut", lambda *given: steps.append(given[1:]) or cut(*given))
    free = passes is None
    folder = tiny_checkpoint(tmp_path / "model", "phi3") if free else tiny_backbone(tmp_path / "model", "qwen2.5-vl")
    config = CONFIGS / ("emoverse-4b" if free else "qwen2.5-vl") / "stage1.yaml"
    flags = [*CPU, "--max_steps", 1, "--per_device_train_batch_size", 2, "--gradient_accumulation_steps", 2, *more]
    SwiftSft(swift(config, "--model", folder, "--output_dir", tmp_path / "out", *flags)).main()
    if free:
        assert not steps
    else:
        lengths, processes, size = steps[0]
        assert (len(lengths), processes, size) == (2 * passes, 1, 2) and len(set(lengths)) > 1


@pytest.mark.parametrize("said", ["gpu", "0", "-1", "2.5"])
def test_a_number_of_processes_that_is_none(monkeypatch, said):
    monkeypatch.setenv("NPROC_PER_NODE", said)
    with pytest.raises(InputError, match=f"NPROC_PER_NODE={said} is not a number of processes"):
        processes()


@pytest.mark.swift
def test_rows_are_measured_before_packing_without_a_look_at_their_clips(tmp_path, rows):
    """Whatever was imported first; and as long as they become."""
    folder = tiny_checkpoint(tmp_path / "model", "phi3")
    processor = get_model_processor(str(folder), model_type="emoverse", torch_dtype=torch.float32, load_model=False)[1]
    template = get_template(processor)
    template.set_mode("train")
    whole = template.encode(rows[0], return_length=True)["lengths"]
    broken = tmp_path / "clip.mp4"
    broken.write_bytes(b"no video")
    assert AddLengthPreprocessor(template).preprocess(rows[0] | {"videos": [str(broken)]})["lengths"] == whole


@pytest.mark.swift
def test_a_mask_that_went_to_another_device_says_the_same(tmp_path):
    """A copy of a tensor has lost its attributes."""
    mask = packing.row_starts(torch.tensor([[0, 1, 2, 0, 1, 0]]))
    query = torch.randn(1, 2, 6, 4)
    module = torch.nn.Module()
    first, second = (packing.varlen_attention(module, query, query, query, one)[0] for one in (mask, mask.clone()))
    assert not hasattr(mask.clone(), "ends") and torch.equal(first, second)


@pytest.mark.swift
@pytest.mark.parametrize("kind", ["phi3", "internlm2", "internvl3.5-hf", "qwen2.5-vl", "qwen3-vl"])
def test_likelihoods_with_a_shared_prompt_are_those_of_whole_rows(tmp_path, rows, kind, monkeypatch):
    """Of answers that share a beginning, too; rows of any length together as each alone. Backbones with more than ids
    are asked with each row whole."""
    monkeypatch.setenv("VIDEO_SEGMENTS", "2")
    ours = kind in ("phi3", "internlm2")
    folder = tiny_checkpoint(tmp_path / "model", kind) if ours else tiny_backbone(tmp_path / "model", kind)
    model_type = f"emoverse_{kind.replace('.', '_').replace('-', '_')}" if kind.startswith("qwen") else "emoverse"
    model, processor = get_model_processor(str(folder), model_type=model_type, torch_dtype=torch.float32)
    template = get_template(processor)
    template.model = model
    template.set_mode("train")
    answers = ["Joy.", "Joyful.", "No."]
    asked = [{**one, "messages": one["messages"][:-1]} for one in rows if len(one["messages"]) == 2]
    prepared = [likelihood.prepare(template, part, answers) for part in (asked, *([row] for row in asked))]
    together, *alone = (likelihood.log_likelihoods(model, template, part) for part in prepared)
    assert len(together) == len(asked) == 4 and len({round(value, 3) for row in together for value in row}) == 12
    for question, one, found in zip(asked, alone, together, strict=True):
        assert found == pytest.approx(one[0], abs=1e-4)
        encoded = [template.encode(likelihood.answered(question, answer)) for answer in answers]
        whole = likelihood.log_likelihoods(model, template, likelihood.Prepared(encoded, len(answers), [], None))[0]
        assert found == pytest.approx(whole, abs=1e-3)


@pytest.mark.parametrize(
    "rows, most, processes, expected",
    [
        (8, 1, 1, (1, 8)),  # the paper's
        (8, 8, 1, (8, 1)),
        (8, 8, 2, (4, 1)),
        (8, 3, 1, (2, 4)),  # three at a time would leave two over
        (8, 4, 4, (2, 1)),
        (12, 100, 2, (6, 1)),
        (8, 4, 3, None),
        (8, 4, 16, None),
    ],
)
def test_a_step_keeps_its_rows(rows, most, processes, expected):
    assert batches.share(rows, most, processes) == expected


def test_flags_of_a_preset(tmp_path, capsys):
    """A preset of one's own; what the user says of the batch stands; processes that cannot share it are said."""
    own = tmp_path / "small.yaml"
    own.write_text("rows_per_device: 2\ngradient_checkpointing: true\noptim: adamw_torch\n")
    settings = ["--gradient_checkpointing", "true", "--optim", "adamw_torch"]
    batch = ["--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "4"]
    assert batches.flags(str(own), 1, 8, 1) == settings + batch
    assert batches.flags(str(own), 1, 8, 1, ["--gradient_accumulation_steps=8"]) == settings
    given = ["--per_device_train_batch_size", "1"]
    assert batches.flags(str(own), 1, 8, 1, given) == settings
    assert batches.flags(str(own), 1, 8, 2, given) == [*settings, *given, "--gradient_accumulation_steps", "4"]
    assert batches.flags(None, 8, 1, 1) == [] and capsys.readouterr().err == ""
    assert batches.flags(None, 4, 1, 2, ["--per_device_train_batch_size", "4"]) == []
    assert "2 processes do not share a batch of 4 rows evenly" in capsys.readouterr().err
    with pytest.raises(InputError, match="neither may be less than 1"):
        batches.flags(None, 0, 1, 1)
    assert batches.flags(None, 8, 1, 3) == []
    assert capsys.readouterr().err == "3 processes do not share a batch of 8 rows evenly: it becomes 3 times as large\n"


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("none", None, "PRESET=none is neither one of 140gb, 24gb, 48gb, 80gb nor a file"),
        ("zero.yaml", "rows_per_device: 0\n", "zero.yaml: rows_per_device: Input should be greater than or equal to 1"),
        ("empty.yaml", "padding_free: true\n", "empty.yaml: rows_per_device: missing key"),
    ],
)
def test_a_preset_that_is_none(tmp_path, monkeypatch, name, content, message):
    monkeypatch.chdir(tmp_path)
    if content:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as refused:
        batches.read_preset(name)
    assert str(refused.value).startswith(message)
