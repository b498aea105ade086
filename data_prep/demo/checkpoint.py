"""Make the demo's base model: a small InternVL2 (Phi-3 kind) in the original layout, pretrained on drawn pictures.

    python -m data_prep.demo_checkpoint --out configs/demo/checkpoint [--seed N] [--steps N]

The shipped checkpoint was made phase by phase by this code with seed 0, before a phrase of configs/facs.yaml changed:
the tokenizer learns from that file, so a run today gives ids and weights of its own. Pretraining
gives LoRA something to adapt, as a real base model would: the ViT learns to read Action Units off faces, the language
model to copy, to look things up in a numbered conversation and to tell moods apart; last, it is asked in other words
for what the AMT tasks ask for (feelings, for or against, movements of a face, what brought a feeling about). It sees no
AMT prompt and no clip or dialogue of the demo world: its own are drawn from other seeds.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Sequence
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

from data_prep import prompts
from data_prep.demo import world as demo_data
from swift_plugins.files import InputError, run_cli, write_json
from swift_plugins.internvl2 import IMAGE_TOKEN, build_config, save_internvl2_original
from swift_plugins.tasks import TASKS, phrase_to_au

VOCABULARY = 1280
SPECIAL = ("<unk>", "<s>", "</s>")
CHAT = ("<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>", "<img>", "</img>", IMAGE_TOKEN)
SIDE = 112
TOKENS = 4  # a picture's visual tokens: (112 / 14)² patches, shuffled by 1/4
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)

AUS = tuple(au for au in demo_data.PRESENCES if au != 45)
# Moods in words that no task's label set has.
MOODS = {
    "neutral": "calm",
    "joy": "glad",
    "sadness": "gloomy",
    "anger": "furious",
    "surprise": "amazed",
    "disgust": "sickened",
    "fear": "scared",
}


# What is told of a thing, as against a reaction to it.
TOLD = tuple(predicate for predicates in demo_data.PREDICATES.values() for predicate in predicates)
LOOKUP_KINDS = {"share": 30, "hear": 15, "where": 15, "told": 15, "what": 8, "who": 3, "feel": 6, "repeat": 8}


def config(vocabulary: int, end: int) -> dict:
    """The original `config.json`: every key that InternVL2-4B's has and that the loader reads."""
    hidden, heads = 128, 4
    factors = [1.0] * (hidden // heads // 2)
    return {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "template": "phi3-chat",
        "ps_version": "v2",
        "select_layer": -1,
        "downsample_ratio": 0.25,
        "force_image_size": SIDE,
        "dynamic_image_size": True,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": 12,
        "use_thumbnail": True,
        "torch_dtype": "float16",
        "llm_config": {
            "architectures": ["Phi3ForCausalLM"],
            "model_type": "phi3",
            "vocab_size": vocabulary,
            "hidden_size": hidden,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-05,
            "initializer_range": 0.02,
            "max_position_embeddings": 4096,
            "original_max_position_embeddings": 4096,
            "rope_theta": 10000.0,
            "rope_scaling": {"type": "su", "short_factor": factors, "long_factor": factors},
            "sliding_window": 262144,
            "tie_word_embeddings": False,
            "bos_token_id": 1,
            "eos_token_id": end,
            "pad_token_id": vocabulary - len(CHAT),
            "torch_dtype": "float16",
        },
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "model_type": "intern_vit_6b",
            "hidden_size": 96,
            "intermediate_size": 288,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": SIDE,
            "patch_size": 14,
            "num_channels": 3,
            "hidden_act": "gelu",
            "norm_type": "layer_norm",
            "layer_norm_eps": 1e-06,
            "qkv_bias": True,
            "qk_normalization": False,
            "initializer_factor": 1.0,
            "initializer_range": 0.02,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "drop_path_rate": 0.0,
            "torch_dtype": "float16",
        },
    }


# Pretraining tasks: each makes a question, an answer and, where it has some, pictures


@dataclass
class Example:
    question: str
    answer: str
    pictures: list[Image.Image] = field(default_factory=list)
    video: bool = False


class Teacher:
    """Draws examples; everything it draws follows from its random generator."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.aus, _ = demo_data.facs()
        self.phrases = {}
        for phrase, au in phrase_to_au().items():
            self.phrases.setdefault(int(au[2:]), []).append(phrase)
        wording = prompts.load()
        self.line = wording.formats["line"]
        labels = {label for task in TASKS.values() for names in task.labels.values() for label in names}
        self.labels = sorted(labels | {label.lower() for label in labels})
        spoken = [predicate for predicates in demo_data.PREDICATES.values() for predicate in predicates]
        spoken += ["The face shows calm stays and the words are So emotion is"]
        self.words = sorted(
            {word for text in (*wording.tasks.values(), *spoken, *demo_data.NOUNS) for word in text.split()}
        )

    # Pictures

    def clip(self, people: int | None = None) -> demo_data.Clip:
        rng = self.rng
        emotion = rng.choice(demo_data.EMOTIONS)
        people = people or rng.choices((1, 2, 3), (70, 20, 10))[0]
        targets = self.aus
        if rng.random() < 0.4:  # any mix of movements, not only those of an emotion
            targets = {emotion: rng.sample(AUS, rng.randint(0, 5))}
        return demo_data.make_clip(rng, "pretraining", "", "", emotion, people, targets)

    def leading(self, clip: demo_data.Clip) -> demo_data.Face:
        return max(clip.faces, key=lambda face: sum(face.peak.values()))

    def picture(self) -> tuple[Image.Image, dict[int, float]]:
        """A frame, mostly the apex, and the intensities of its leading face."""
        clip = self.clip()
        face = self.leading(clip)
        frame = face.apex if self.rng.random() < 0.7 else self.rng.randrange(clip.frames)
        return demo_data.draw_frame(clip, frame), face.intensities(frame)

    def active(self, values: dict[int, float]) -> list[int]:
        return sorted(au for au in AUS if values[au] >= 1)

    def look(self) -> Example:
        """The mood that a face shows, of a clip whose face shows one."""
        emotion = self.rng.choice(demo_data.EMOTIONS)
        people = self.rng.choices((1, 2, 3), (70, 20, 10))[0]
        clip = demo_data.make_clip(self.rng, "pretraining", "", "", emotion, people, self.aus)
        face = self.leading(clip)
        if not any(face.peak[au] >= 1 for au in self.aus[emotion]):
            emotion = "neutral"
        if self.rng.random() < 0.2:
            return Example("How does the face look?", MOODS[emotion], self.frames(clip), True)
        return Example("How does the face look?", MOODS[emotion], [demo_data.draw_frame(clip, face.apex)])

    def frames(self, clip: demo_data.Clip) -> list[Image.Image]:
        return [demo_data.draw_frame(clip, int(clip.frames / 8 * (i + 0.5))) for i in range(8)]

    def read_units(self) -> Example:
        picture, values = self.picture()
        units = " ".join(f"AU{au:02d}" for au in self.active(values)) or "none"
        return Example("Which action units are active?", units, [picture])

    def read_parts(self) -> Example:
        picture, values = self.picture()
        return Example("Which parts of the face move?", self.parts(values), [picture])

    def parts(self, values: dict[int, float]) -> str:
        return ", ".join(self.rng.choice(self.phrases[au]) for au in self.active(values)) or "nothing moves"

    def read_clip(self) -> Example:
        clip = self.clip()
        face = self.leading(clip)
        numbers = [int(clip.frames / 8 * (i + 0.5)) for i in range(8)]
        frames = self.frames(clip)
        best = min(range(8), key=lambda i: abs(numbers[i] - face.apex))
        if self.rng.random() < 0.3:
            return Example("In which frame is the face strongest?", str(best + 1), frames, True)
        values = face.intensities(face.apex)
        if self.rng.random() < 0.5:
            return Example("Which parts of the face move?", self.parts(values), frames, True)
        units = " ".join(f"AU{au:02d}" for au in self.active(values)) or "none"
        return Example("Which action units are active?", units, frames, True)

    def picture_and_words(self) -> Example:
        """Two questions about unlike things, so that words do not drown the picture, nor the picture the words."""
        picture, values = self.picture()
        mood, text = self.spoken()
        if self.rng.random() < 0.5:
            return Example(f"{text}\nRepeat the words.", text, [picture])
        if self.rng.random() < 0.5:
            return Example(f"{text}\nHow do the words sound?", mood, [picture])
        return Example(f"{text}\nWhich parts of the face move?", self.parts(values), [picture])

    # Words

    def spoken(self) -> tuple[str, str]:
        emotion, polarity = demo_data.emotion_and_polarity(self.rng)
        return MOODS[emotion], demo_data.sentence(self.rng, emotion, polarity, clear=True)

    def dictionary(self) -> Example:
        au = self.rng.choice(list(self.phrases))
        phrase = self.rng.choice(self.phrases[au])
        if self.rng.random() < 0.5:
            return Example(f"{phrase}: which action unit?", f"AU{au:02d}")
        return Example(f"What does AU{au:02d} mean?", phrase)

    def repeat(self) -> Example:
        text = self.spoken()[1]
        return Example(f"{text}\nRepeat the words.", text)

    def copy(self) -> Example:
        """Any words in any order, so that no word that a task may ask for is one the model has never said."""
        rng = self.rng
        words = []
        for _ in range(rng.randint(2, 9)):
            kind = rng.random()
            if kind < 0.35:
                words.append(rng.choice(self.labels) + rng.choice((".", "", ";")))
            elif kind < 0.5:
                emotion = rng.choice(demo_data.EMOTIONS)
                words.append(f"{rng.randint(1, 9)}_{emotion},{rng.randint(1, 9)}" + rng.choice((";", "", ".")))
            elif kind < 0.65:
                words.append(rng.choice(rng.choice(list(self.phrases.values()))) + rng.choice((";", ",", "")))
            else:
                words.append(rng.choice(self.words))
        text = " ".join(words)
        return Example(f"Repeat: {text}", text)

    def ask(self, video: bool = False) -> Example:
        """A question about a speaker's feeling, verdict or face, in none of the wordings of configs/prompts.yaml."""
        rng = self.rng
        emotion, polarity = demo_data.emotion_and_polarity(rng)
        text = demo_data.sentence(rng, emotion, polarity)
        people = rng.choices((1, 2, 3), (70, 20, 10))[0]
        clip = demo_data.make_clip(rng, "pretraining", "", "", emotion, people, self.aus)
        face = self.leading(clip)
        pictures = self.frames(clip) if video else [demo_data.draw_frame(clip, face.apex)]
        kind = rng.random()
        if kind < 0.4:
            labels = list(TASKS["mer"].labels[rng.choice(("meld", "mosei"))])
            rng.shuffle(labels)
            word = {"joy": "Joy" if "Joy" in labels else "Happy"}.get(emotion, emotion.capitalize())
            questions = (
                f"{text}\nName the feeling in a word, out of {', '.join(labels)}.",
                f"{text}\nWhat does the person feel? One of {', '.join(labels)}.",
            )
            return Example(rng.choice(questions), f"{word}.", pictures, video)
        if kind < 0.7:
            questions = (
                f"{text}\nIs the person for or against it? Say Positive or Negative.",
                f"{text}\nGood or bad: Positive, Negative?",
            )
            return Example(rng.choice(questions), "Negative." if polarity < 0 else "Positive.", pictures, video)
        if kind < 0.92:
            units = self.active(face.intensities(face.apex))
            units = [au for au in units if emotion == "neutral" or au in self.aus[emotion]]
            answer = "; ".join(rng.choice(self.phrases[au]) for au in units)
            if not answer:
                return self.ask(video)
            questions = (
                "List the movements in this face, with semicolons between.",
                "Put the expression of the face into words; part by part.",
            )
            return Example(rng.choice(questions), answer, pictures, video)
        return Example(f"{text}\nRepeat the words.", text, pictures, video)

    def ask_clip(self) -> Example:
        return self.ask(video=True)

    def cause(self) -> Example:
        """What brought about the feeling of a line, in none of the wordings of configs/prompts.yaml."""
        rng = self.rng
        lines = demo_data.conversation(rng, recent=rng.choice((0.0, 0.85)))
        text = [
            self.line.format(index=i, emotion=x.emotion, speaker=x.speaker, text=x.text) for i, x in enumerate(lines, 1)
        ]
        moved = [i for i, x in enumerate(lines, 1) if x.emotion != "neutral"]
        if not moved:
            return self.cause()
        number = rng.choice(moved)
        line, talk = lines[number - 1], "\n".join(text)
        pair = f"{number}_{line.emotion}"
        questions = (
            f"{talk}\n\nLine:\n{text[number - 1]}\n\n"
            f"What brought this about? Write pairs like {pair},line with semicolons.",
            f"{talk}\n\nWhat made {line.speaker} feel like that in line {number}? Write {pair},line for each.",
        )
        return Example(rng.choice(questions), ";".join(f"{pair},{cause}" for cause in line.causes))

    def mood(self) -> Example:
        mood, text = self.spoken()
        return Example(f"{text}\nHow do the words sound?", mood)

    def verdict(self) -> Example:
        polarity = self.rng.choice((1, -1))
        text = demo_data.sentence(self.rng, "neutral", polarity, clear=True)
        return Example(f"{text}\nDid they like it?", "yes" if polarity > 0 else "no")

    def lookup(self) -> Example:
        """One question about a numbered conversation."""
        rng = self.rng
        lines = demo_data.conversation(rng)
        text = [
            self.line.format(index=i, emotion=x.emotion, speaker=x.speaker, text=x.text) for i, x in enumerate(lines, 1)
        ]
        words = [set(x.text.lower().translate(str.maketrans("", "", ".,!")).split()) for x in lines]
        things = [[noun for noun in demo_data.NOUNS if noun in spoken] for spoken in words]
        talk = "\n".join(text)
        number = rng.randrange(len(lines))
        name = number + 1
        here = things[number]
        told = [
            [noun for noun in nouns if any(f"{noun} {x}" in line.text for x in TOLD)]
            for nouns, line in zip(things, lines, strict=True)
        ]
        kind = rng.choices(list(LOOKUP_KINDS), LOOKUP_KINDS.values())[0]
        if kind in ("share", "hear"):
            question = (
                "Which other lines share a thing with {}?" if kind == "share" else "Where do we hear of its things: {}?"
            )
            if rng.random() < 0.3:
                question = question.format(f"line {name}")
            else:
                question = f"Line:\n{text[number]}\n\n{question.format('it')}"
            where = things if kind == "share" else told
            others = [
                str(i + 1)
                for i in range(len(lines))
                if set(where[i]) & set(here) and not (kind == "share" and i == number)
            ]
            return Example(f"{talk}\n\n{question}", ",".join(others) or "none")
        if kind in ("where", "told"):
            noun = rng.choice([noun for line in things for noun in line] or demo_data.NOUNS)
            found = [str(i + 1) for i, nouns in enumerate(things if kind == "where" else told) if noun in nouns]
            question = "Which lines speak of the" if kind == "where" else "Which line tells of the"
            return Example(f"{talk}\n\n{question} {noun}?", ",".join(found) or "none")
        if kind == "what":
            return Example(f"{talk}\n\nWhat does line {name} speak of?", ", ".join(here) or "nothing")
        if kind == "who":
            return Example(f"{talk}\n\nWho says line {name}?", lines[number].speaker)
        if kind == "feel":
            return Example(f"{talk}\n\nWhat is noted for line {name}?", f"{name}_{lines[number].emotion}")
        return Example(f"{talk}\n\nRepeat line {name}.", text[number])


LOOKUPS = ((Teacher.lookup, 100),)
WORDS = ((Teacher.repeat, 30), (Teacher.mood, 30), (Teacher.verdict, 20), (Teacher.dictionary, 20))
PICTURES = (
    (Teacher.read_units, 25),
    (Teacher.read_parts, 30),
    (Teacher.look, 15),
    (Teacher.picture_and_words, 25),
    (Teacher.mood, 5),
)
COPIES = ((Teacher.copy, 100),)
CLIPS = ((Teacher.read_clip, 100),)
ASKED = ((Teacher.ask, 100),)
ASKED_CLIPS = ((Teacher.ask_clip, 100),)
CAUSES = ((Teacher.cause, 100),)
MIXES = {"copies": COPIES, "lookups": LOOKUPS, "words": WORDS, "pictures": PICTURES, "clips": CLIPS}
MIXES |= {"asked": ASKED, "asked clips": ASKED_CLIPS, "causes": CAUSES}


# Tokens


def make_tokenizer(teacher: Teacher) -> PreTrainedTokenizerFast:
    """Byte-level BPE over demo text and the project's prompts, with Phi-3's chat tokens at the end."""
    wording = prompts.load()
    corpus = [wording.system, *wording.tasks.values(), *phrase_to_au()] * 20
    corpus += [f"AU{au:02d}" for au in demo_data.PRESENCES] * 50
    labels = {label for task in TASKS.values() for names in task.labels.values() for label in names}
    corpus += [f"{label}. {label} {label.lower()} 1_{label.lower()},2" for label in sorted(labels)] * 20
    for _ in range(2000):
        for kinds in (LOOKUPS, WORDS, PICTURES):
            example = teacher.rng.choices([make for make, _ in kinds], [weight for _, weight in kinds])[0](teacher)
            corpus.append(f"{example.question}\n{example.answer}")
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


# Training


def pixels(pictures: list[Image.Image]) -> torch.Tensor:
    """(n, 3, SIDE, SIDE), normalised as InternVL2 does."""
    array = np.stack([np.asarray(picture, np.float32) for picture in pictures])
    return torch.from_numpy(((array / 255 - MEAN) / STD).transpose(0, 3, 1, 2).copy())


def collate(examples: list[Example], tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> dict:
    """Phi-3 chat turns, padded on the right; the loss is on the answer, and a little on the words of the question."""
    rows, picture_rows, system = [], [], prompts.load().system
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


def open_eyes(model: InternVLForConditionalGeneration, teacher: Teacher, steps: int) -> None:
    """The ViT and the projector learn to tell AU intensities, through a linear reader that is thrown away."""
    reader = nn.Linear(TOKENS * model.config.text_config.hidden_size, len(AUS))
    core = model.model
    parameters = [*core.vision_tower.parameters(), *core.multi_modal_projector.parameters(), *reader.parameters()]

    def step(number: int) -> tuple[torch.Tensor, dict]:
        drawn = [teacher.picture() for _ in range(64)]
        target = torch.tensor([[values[au] / 5 for au in AUS] for _, values in drawn])
        features = core.get_image_features(pixel_values=pixels([picture for picture, _ in drawn])).pooler_output
        guess = reader(features.reshape(len(drawn), -1))
        loss = nn.functional.mse_loss(guess, target) * 50
        hit = ((guess > 0.2) & (target > 0.2)).sum() / ((guess > 0.2) | (target > 0.2)).sum().clamp(min=1)
        return loss, {"loss": loss.item(), "jaccard": hit.item()}

    train(parameters, steps, 1e-3, step, "eyes")


def teach(
    model: InternVLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    teacher: Teacher,
    steps: int,
    rate: float,
    kinds: tuple[tuple, ...],
    name: str,
) -> None:
    """Questions and answers; each step takes its batch from one of `kinds`, (tasks, batch size) in turn."""

    def step(number: int) -> tuple[torch.Tensor, dict]:
        tasks, size = kinds[number % len(kinds)]
        makers = teacher.rng.choices([make for make, _ in tasks], [weight for _, weight in tasks], k=size)
        loss, right = loss_of(model, collate([make(teacher) for make in makers], tokenizer, teacher.rng))
        label = next(label for label, known in MIXES.items() if known is tasks)
        return loss, {f"{label} loss": loss.item(), f"{label} right": right}

    train([p for p in model.parameters() if p.requires_grad], steps, rate, step, name)


def new_model(seed: int) -> tuple[InternVLForConditionalGeneration, PreTrainedTokenizerFast, dict]:
    """Random weights, the tokenizer and the original config; the same for a seed."""
    tokenizer = make_tokenizer(Teacher(random.Random(f"pretraining/{seed}/tokenizer")))
    settings = config(len(tokenizer), tokenizer.eos_token_id)
    torch.manual_seed(seed)
    model = InternVLForConditionalGeneration(build_config(settings, tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)))
    return model.float().train(), tokenizer, settings


def learn(phase: str, seed: int, steps: int, files: Sequence[Path], out: Path) -> None:
    """One phase of pretraining: `eyes` and `words` train parts that do not overlap, `both` and `ask` everything."""
    torch.set_num_threads(1)  # sums in one order, whatever the machine
    model, tokenizer, _ = new_model(seed)
    for file in files:
        model.load_state_dict(load_file(file), strict=False)
    teacher = Teacher(random.Random(f"pretraining/{seed}/{phase}"))
    if phase == "eyes":
        open_eyes(model, teacher, steps)
    elif phase == "words":
        teach(model, tokenizer, teacher, steps, 1.5e-3, ((LOOKUPS, 16), (LOOKUPS, 16), (WORDS, 32)), phase)
    elif phase == "both":
        kinds = ((LOOKUPS, 16), (PICTURES, 24), (COPIES, 24), (PICTURES, 24), (WORDS, 16), (CLIPS, 6))
        teach(model, tokenizer, teacher, steps, 1e-3, kinds, phase)
    else:
        kinds = ((ASKED, 24), (CAUSES, 20), (ASKED, 24), (CAUSES, 20), (ASKED_CLIPS, 6), (COPIES, 16), (PICTURES, 16))
        teach(model, tokenizer, teacher, steps, 1e-3, kinds, phase)
    seen = ("model.vision_tower.", "model.multi_modal_projector.")
    weights = {
        name: weight.contiguous()
        for name, weight in model.state_dict().items()
        if phase in ("both", "ask") or name.startswith(seen) == (phase == "eyes")
    }
    save_file(weights, out)


PHASES = {"eyes": 15, "words": 15, "both": 12, "ask": 16}  # shares of the steps, in order


def make(out: Path, seed: int, steps: int) -> None:
    """Pretrain for `steps` steps in all (eyes and words at the same time, both, ask) and write the checkpoint."""
    count = {phase: steps * share // 58 for phase, share in PHASES.items()}
    with tempfile.TemporaryDirectory() as folder:
        eyes, words, both, ask = (Path(folder) / f"{phase}.safetensors" for phase in PHASES)
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
            first = [pool.submit(learn, "eyes", seed, count["eyes"], (), eyes)]
            first.append(pool.submit(learn, "words", seed, count["words"], (), words))
            for future in first:
                future.result()
        learn("both", seed, count["both"], (eyes, words), both)
        learn("ask", seed, count["ask"], (both,), ask)
        model, tokenizer, settings = new_model(seed)
        model.load_state_dict(load_file(ask))
    save_internvl2_original(model.half(), settings, tokenizer, out)
    generation = {"bos_token_id": 1, "eos_token_id": [tokenizer.eos_token_id], "pad_token_id": tokenizer.pad_token_id}
    write_json(out / "generation_config.json", generation)
    (out / "model.safetensors").chmod(0o644)  # safetensors makes it readable by its owner alone


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the demo's base model.", prog="data_prep.demo.checkpoint")
    parser.add_argument("--out", required=True, type=Path, help="a new folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=5800, help="training steps; 0 gives random weights")
    args = parser.parse_args()
    if args.out.exists() and any(args.out.iterdir()):
        raise InputError("exists already; name a new folder or remove this one first", args.out)
    make(args.out, args.seed, args.steps)
    return 0


if __name__ == "__main__":
    run_cli(main)
