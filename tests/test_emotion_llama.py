"""Emotion-LLaMA: the published layout loads, computes what the original code computes, and goes back."""

import json
import os
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from swift.model import get_model_processor
from swift.template import get_template
from transformers import GenerationConfig

import swift_plugins.emoverse  # noqa: F401  registers the model type
from swift_plugins.emotion_llama.config import BLOCK, STREAMS
from tests.conftest import ROOT
from tests.tiny_emotion_llama import SIZES, converted

SHARED = Path(os.environ.get("EMOVERSE_SHARED", ROOT.parent / "shared")) / "data" / "emotion_llama"
needs_golden = pytest.mark.skipif(not SHARED.is_dir(), reason=f"golden outputs of the original code not at {SHARED}")
NEAR = 1e-5


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """variant → (model with the trained adapter, tensors, texts), all of the original code's tiny checkpoint."""
    if not SHARED.is_dir():
        pytest.skip(f"golden outputs of the original code not at {SHARED}")
    found = {}
    for variant, name in ((1, "emotion_llama"), (2, "emotion_llama_v2")):
        folder = tmp_path_factory.mktemp(name)
        parts = ["--eva", SHARED / "eva_vit_g.safetensors", "--llama", SHARED / "emotion_llama" / "llama"]
        converted("base", *parts, "--variant", variant, "--out", folder / "base", *SIZES)
        state = SHARED / name / "checkpoint.safetensors"
        given = ["--checkpoint", state, "--base", folder / "base", "--alpha", "1"]
        said = converted("adapter", *given, "--out", folder / "adapter")
        assert ("4 of the unused classifier ignored" in said) == (variant == 1)
        model, processor = get_model_processor(
            str(folder / "base"), model_type="emotion_llama", torch_dtype=torch.float32, device_map="cpu"
        )
        model = PeftModel.from_pretrained(model, folder / "adapter").eval()
        texts = json.loads((SHARED / name / "golden.json").read_text())
        found[variant] = (model, processor, load_file(SHARED / name / "golden.safetensors"), texts)
    return found


def encoded(processor, query, answer, monkeypatch, original=False, train=True, **media):
    """A row as the template encodes it; its media are opened and then replaced."""
    monkeypatch.setenv("ORIGINAL_INFERENCE", str(original).lower())
    template = get_template(processor, max_length=4096)
    template.set_mode("train" if train else "transformers")
    messages = [{"role": "user", "content": query}] + ([{"role": "assistant", "content": answer}] if answer else [])
    with template.lengths_only():
        row = template.encode({"messages": messages, **media})
    return template, row


def query_of(instruction):
    """A row's query of an original instruction: what stands after the places of the media, trimmed."""
    return instruction.rpartition("Here></feature>" if "<feature>" in instruction else "Here></Vid>")[2].strip()


def embedded(template, model, row, pixels, streams):
    """`inputs_embeds` of one encoded row with given media."""
    batch = {"input_ids": torch.tensor([row["input_ids"]]), "pixel_values": pixels[None]}
    batch |= {name: stream[None] for name, stream in zip(STREAMS[template.config.variant], streams, strict=True)}
    with torch.no_grad():
        return template._post_encode(model, batch)["inputs_embeds"]


def far(one, other):
    return (one - other).abs().max().item()


@needs_golden
def test_vision_and_media_tokens_are_the_original_s(golden):
    model, _, wanted, _ = golden[1]
    core = model.get_base_model()
    with torch.no_grad():
        assert far(core.look(wanted["image"]), wanted["ln_out"]) < NEAR
        streams = [*wanted["features"].unbind(1)]
        assert far(core.media(wanted["image"], streams), wanted["media_embeds"]) < NEAR
    model, _, wanted, _ = golden[2]
    core = model.get_base_model()
    with torch.no_grad():
        video, audio = wanted["video_features"].squeeze(1), wanted["audio_features"].squeeze(1)
        cls = wanted["image_cls"].reshape(len(video), 1, -1)
        assert far(core.look(wanted["image"])[:, :1], cls) < NEAR
        fused = core.conv_pro_module(audio, cls.expand(-1, BLOCK, -1), video)
        assert far(fused, wanted["fusion_out"]) < 1e-6 * wanted["fusion_out"].abs().max()
        assert far(core.media(wanted["image"], [video, audio]), wanted["media_embeds"]) < NEAR


@needs_golden
@pytest.mark.parametrize("variant, row", [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2)])
def test_ids_labels_embeddings_and_loss_of_a_training_row(golden, monkeypatch, variant, row):
    model, processor, wanted, texts = golden[variant]
    query, answer = query_of(texts["instructions"][row]), texts["answers"][row]
    media = {"videos": ["clip.mp4"]}
    template, got = encoded(processor, query, answer, monkeypatch, **media)
    assert encoded(processor, f" {query} ", answer, monkeypatch, **media)[1]["input_ids"] == got["input_ids"]
    assert got["labels"] == wanted[f"row{row}_labels"].flatten().tolist()
    if variant == 1:
        streams = wanted["features"][row].unbind(0)
    else:
        streams = wanted["video_features"][row, 0], wanted["audio_features"][row, 0]
    embeds = embedded(template, model, got, wanted["image"][row], streams)
    assert far(embeds[0], wanted[f"row{row}_inputs_embeds"].reshape(embeds[0].shape)) < NEAR
    with torch.no_grad():
        loss = model(inputs_embeds=embeds, labels=torch.tensor([got["labels"]])).loss
    assert abs(loss.item() - wanted[f"row{row}_loss"].item()) < NEAR


@needs_golden
@pytest.mark.parametrize("variant, row", [(1, 0), (1, 1), (2, 0)])
def test_greedy_answers_in_the_published_layout(golden, monkeypatch, variant, row):
    """ORIGINAL_INFERENCE: a second <s>, and in variant 1 all media at the first place."""
    model, processor, wanted, texts = golden[variant]
    query = query_of(texts["instructions"][row])
    template, got = encoded(processor, query, None, monkeypatch, original=True, train=False, videos=["clip.mp4"])
    if variant == 1:
        streams = wanted["features"][row].unbind(0)
    else:
        streams = wanted["video_features"][row, 0], wanted["audio_features"][row, 0]
    embeds = embedded(template, model, got, wanted["image"][row], streams)
    expected = wanted["infer_inputs_embeds"]
    expected = expected[row if expected.dim() == 3 else slice(None)]
    expected = expected.reshape(-1, expected.shape[-1])[-embeds.shape[1] :]  # padded on the left
    assert far(embeds[0], expected) < NEAR
    tokens = wanted["infer_tokens"].reshape(-1, wanted["infer_tokens"].shape[-1])[row].tolist()
    greedy = GenerationConfig(do_sample=False, max_new_tokens=len(tokens), pad_token_id=0)
    with torch.no_grad():
        ids = model.generate(
            inputs_embeds=embeds, attention_mask=torch.ones(embeds.shape[:2]), generation_config=greedy
        )[0].tolist()
    assert ids == tokens[: len(ids)]
    assert (
        encoded(processor, query, None, monkeypatch, train=False, videos=["clip.mp4"])[1]["input_ids"]
        != got["input_ids"]
    )
