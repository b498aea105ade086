"""The demo's base model: a small InternVL2 (Phi-3 kind) in the original layout, pretrained on drawn pictures.

Run by `python -m data_prep.demo.checkpoint`, which says what it is for.
"""

from __future__ import annotations

import functools
import math
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import InternVLForConditionalGeneration, PreTrainedTokenizerFast

from data_prep.demo.faces import PRESENCES
from data_prep.demo.pretraining import AUS, MIXES, UNTAUGHT, WORDING, Example, Mix, PretrainingTasks
from swift_plugins.files import InputError, write_json
from swift_plugins.internvl2 import IMAGE_TOKEN, build_config, save_internvl2_original

CONFIG: dict = WORDING["config"]
VOCABULARY: int = CONFIG["llm_config"]["vocab_size"]
SPECIAL = ("<unk>", "<s>", "</s>")
CHAT = ("<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>", "<img>", "</img>", IMAGE_TOKEN)
TOKENS = 4  # a picture's visual tokens: (112 / 14)² patches, shuffled by 1/4
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


def make_tokenizer(tasks: PretrainingTasks) -> PreTrainedTokenizerFast:
    """Byte-level BPE over the words of pretraining, with Phi-3's chat tokens at the end."""
    phrases = [phrase for phrases in WORDING["phrases"].values() for phrase in phrases]
    corpus = [WORDING["system"], *WORDING["prompts"], *phrases] * 20
    corpus += [f"AU{au:02d}" for au in PRESENCES] * 50
    corpus += [f"{label}. {label} {label.lower()} 1_{label.lower()},2" for label in WORDING["labels"]] * 20
    for _ in range(2000):
        for mix in ("lookups", "words", "pictures"):
            corpus += [f"{example.question}\n{example.answer}" for example in tasks.batch(MIXES[mix], 1)]
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(CHAT),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(corpus, trainer)
    core.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in CHAT])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="<|end|>",
        pad_token="<|endoftext|>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )


def pixels(pictures: list[Image.Image]) -> torch.Tensor:
    """(n, 3, SIDE, SIDE), normalised as InternVL2 does."""
    array = np.stack([np.asarray(picture, np.float32) for picture in pictures])
    return torch.from_numpy(((array / 255 - MEAN) / STD).transpose(0, 3, 1, 2).copy())


def collate(examples: list[Example], tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> dict:
    """Phi-3 chat turns, padded on the right; the loss is on the answer, and a little on the words of the question."""
    rows, picture_rows, system = [], [], WORDING["system"]
    for example in examples:
        image = "<img>" + IMAGE_TOKEN * TOKENS + "</img>\n"
        media = "".join(f"Frame{i + 1}: {image}" if example.video else image for i in range(len(example.pictures)))
        head = f"<|system|>\n{system}<|end|>" if rng.random() < 0.5 else ""
        prompt = tokenizer(f"{head}<|user|>\n{media}{example.question}<|end|><|assistant|>\n").input_ids
        answer = tokenizer(f"{example.answer}<|end|>").input_ids
        rows.append((prompt, answer))
        picture_rows += example.pictures
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = torch.full((len(rows), width), tokenizer.pad_token_id)
    mask, answers = torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    for i, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        ids[i, :end] = torch.tensor(prompt + answer)
        mask[i, :end] = 1
        answers[i, len(prompt) : end] = True
    batch = {"input_ids": ids, "attention_mask": mask, "answers": answers}
    if picture_rows:
        batch["pixel_values"] = pixels(picture_rows)
    return batch


def loss_of(model: InternVLForConditionalGeneration, batch: dict) -> tuple[torch.Tensor, float]:
    """Cross entropy on answers + 0.1 x that on the words of questions; and the share of right answer tokens."""
    batch = dict(batch)
    answers = batch.pop("answers")[:, 1:]
    target = batch["input_ids"][:, 1:]
    words = (
        (batch["attention_mask"][:, 1:] == 1) & ~answers & (target < model.config.text_config.vocab_size - len(CHAT))
    )
    words &= (torch.arange(target.shape[1]) + answers.sum()) % 4 == 0  # a quarter of them is enough
    hidden = model.model(**batch).last_hidden_state[:, :-1]
    logits = model.lm_head(hidden[answers])
    loss = nn.functional.cross_entropy(logits, target[answers])
    loss = loss + 0.1 * nn.functional.cross_entropy(model.lm_head(hidden[words]), target[words])
    return loss, (logits.argmax(-1) == target[answers]).float().mean().item()


def train(
    parameters: list[nn.Parameter], steps: int, rate: float, step: Callable[[int], tuple[torch.Tensor, dict]], name: str
) -> None:
    """AdamW with warm-up and cosine; prints a line now and then."""
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
    warm = max(1, min(100, steps // 10))
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min((i + 1) / warm, 0.02 + 0.98 * (1 + math.cos(math.pi * i / max(1, steps))) / 2)
    )
    start, means = time.time(), {}
    for number in range(steps):
        loss, values = step(number)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        scheduler.step()
        for key, value in values.items():
            means[key] = 0.98 * means.get(key, value) + 0.02 * value
        if (number + 1) % 100 == 0 or number + 1 == steps:
            shown = "  ".join(f"{key} {value:.3f}" for key, value in sorted(means.items()))
            print(f"{name} {number + 1}/{steps}  {time.time() - start:.0f} s  {shown}", flush=True)


@dataclass(frozen=True)
class Phase:
    """share: of the steps, in 58ths. part: the weights it trains: of what is `seen`, of what is `said`, `all`. batches:
    (name in mixes, batch size), one step each in turn."""

    name: str
    share: int
    part: str
    rate: float
    batches: tuple[tuple[str, int], ...] = ()
    mixes: Mapping[str, Mix] = field(default_factory=lambda: MIXES)


EYES = Phase("eyes", 15, "seen", 1e-3)
WORDS = (("lookups", 16), ("lookups", 16), ("words", 32))
BOTH = (("lookups", 16), ("pictures", 24), ("copies", 24), ("pictures", 24), ("words", 16), ("clips", 6))
ASK = (
    *(("asked", 24), ("causes", 20), ("asked", 24), ("causes", 20)),
    *(("asked clips", 6), ("copies", 16), ("pictures", 16)),
)
# In this order, the first two at the same time: what is seen and what is said are parts that do not overlap.
TAUGHT = (
    EYES,
    Phase("words", 15, "said", 1.5e-3, WORDS),
    Phase("both", 12, "all", 1e-3, BOTH),
    Phase("ask", 16, "all", 1e-3, ASK),
)
PLAIN = (
    EYES,
    Phase("plain words", 15, "said", 1.5e-3, WORDS, UNTAUGHT),
    Phase("plain both", 20, "all", 1e-3, BOTH, UNTAUGHT),
)


def open_eyes(model: InternVLForConditionalGeneration, tasks: PretrainingTasks, steps: int) -> None:
    """The ViT and the projector learn to tell AU intensities, through a linear reader that is thrown away."""
    reader = nn.Linear(TOKENS * model.config.text_config.hidden_size, len(AUS))
    core = model.model
    parameters = [*core.vision_tower.parameters(), *core.multi_modal_projector.parameters(), *reader.parameters()]

    def step(number: int) -> tuple[torch.Tensor, dict]:
        drawn = [tasks.picture() for _ in range(64)]
        target = torch.tensor([[values[au] / 5 for au in AUS] for _, values in drawn])
        features = core.get_image_features(pixel_values=pixels([picture for picture, _ in drawn])).pooler_output
        guess = reader(features.reshape(len(drawn), -1))
        loss = nn.functional.mse_loss(guess, target) * 50
        hit = ((guess > 0.2) & (target > 0.2)).sum() / ((guess > 0.2) | (target > 0.2)).sum().clamp(min=1)
        return loss, {"loss": loss.item(), "jaccard": hit.item()}

    train(parameters, steps, 1e-3, step, "eyes")


def answer_questions(
    model: InternVLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    tasks: PretrainingTasks,
    steps: int,
    phase: Phase,
) -> None:
    """Questions and answers; each step takes its batch from one of the phase's mixes in turn."""

    def step(number: int) -> tuple[torch.Tensor, dict]:
        name, size = phase.batches[number % len(phase.batches)]
        examples = tasks.batch(phase.mixes[name], size)
        loss, right = loss_of(model, collate(examples, tokenizer, tasks.rng))
        return loss, {f"{name} loss": loss.item(), f"{name} right": right}

    train([p for p in model.parameters() if p.requires_grad], steps, phase.rate, step, phase.name)


@functools.lru_cache(maxsize=1)
def tokenizer_of(seed: int) -> PreTrainedTokenizerFast:
    """The tokenizer of a seed, made once in a process."""
    return make_tokenizer(PretrainingTasks(random.Random(f"pretraining/{seed}/tokenizer")))


def new_model(seed: int) -> tuple[InternVLForConditionalGeneration, PreTrainedTokenizerFast]:
    """Random weights and the tokenizer; the same for a seed."""
    tokenizer = tokenizer_of(seed)
    torch.manual_seed(seed)
    model = InternVLForConditionalGeneration(build_config(CONFIG, tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)))
    return model.float().train(), tokenizer


def run_phase(phase: Phase, seed: int, steps: int, files: Sequence[Path], out: Path) -> None:
    """One phase of pretraining, from the weights in `files` to `out`; where a file has no weights they are random."""
    torch.set_num_threads(1)  # sums in one order, however many cores there are
    model, tokenizer = new_model(seed)
    for file in files:
        model.load_state_dict(load_file(file), strict=False)
    tasks = PretrainingTasks(random.Random(f"pretraining/{seed}/{phase.name}"))
    if phase.part == "seen":
        open_eyes(model, tasks, steps)
    else:
        answer_questions(model, tokenizer, tasks, steps, phase)
    seen = ("model.vision_tower.", "model.multi_modal_projector.")
    weights = {
        name: weight.contiguous()
        for name, weight in model.state_dict().items()
        if phase.part == "all" or name.startswith(seen) == (phase.part == "seen")
    }
    save_file(weights, out)


def make(out: Path, seed: int, steps: int, untaught: bool = False) -> None:
    """Pretrain for `steps` steps in all (what is seen and what is said at the same time) and write the checkpoint.

    untaught: without the questions of the tasks. Raises `InputError` when `out` exists and is not an empty folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("exists already; name a new folder or remove this one first", out)
    phases = PLAIN if untaught else TAUGHT
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.safetensors" for number in range(len(phases))]
        work = [(phase, seed, steps * phase.share // 58) for phase in phases]
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            opened = pool.submit(run_phase, *work[0], (), files[0])
            run_phase(*work[1], (), files[1])
            opened.result()
        for number in range(2, len(phases)):
            run_phase(*work[number], files[:2] if number == 2 else files[number - 1 : number], files[number])
        model, tokenizer = new_model(seed)
        model.load_state_dict(load_file(files[-1]))
    save_internvl2_original(model.half(), CONFIG, tokenizer, out)
    generation = {"bos_token_id": 1, "eos_token_id": [tokenizer.eos_token_id], "pad_token_id": tokenizer.pad_token_id}
    write_json(out / "generation_config.json", generation)
    (out / "model.safetensors").chmod(0o644)  # safetensors makes it readable by its owner alone
