"""What both stages will take on a GPU, before any training: rows, tokens, steps, disk, memory and time.

    python -m benchmarks.plan emoverse-4b --gpu a6000
    NPROC_PER_NODE=2 python -m benchmarks.plan emoverse-4b --gpu rtx3090 --preset 24gb
    python -m benchmarks.plan emoverse-4b --gpu h100 --preset 80gb --model DIR --data AMT

With --data rows and tokens are counted as training will see them (`swift_plugins.length_plan`, which needs the model's
tokenizer, so --model DIR); without it they are the paper's sizes, and texts have the lengths of TEXT. Steps follow from
CONFIG/<stage>.yaml, the preset and the flags after `--`; processes are NPROC_PER_NODE on NNODES machines.

GPU MEMORY AND TIME ARE ESTIMATED, NOT MEASURED. The formula's parts that need no GPU are checked by
tests/test_plan.py: parameters against a model, kept activations against what autograd keeps on a CPU. The share of a
GPU's peak that training reaches is an assumption (--utilisation). Exit status 1 where a stage does not fit.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from swift_plugins import batches, length_plan, mixture
from swift_plugins.files import CONFIGS, InputError, run_cli
from swift_plugins.options import option, parse

if TYPE_CHECKING:
    from transformers import InternVLConfig

GB = 10**9


class Gpu(NamedTuple):
    """Memory in GB of 10⁹ bytes (cards have a few per cent more) and dense bf16 peak in 10¹² operations a second."""

    memory: int
    peak: float


# NVIDIA's data sheets; RTX 3090, RTX 4090 and A6000: its GA102 and Ada white papers, bf16 with float32 accumulation.
GPUS = {
    "rtx3090": Gpu(24, 71),
    "rtx4090": Gpu(24, 165.2),
    "a6000": Gpu(48, 154.8),
    "l40s": Gpu(48, 362),
    "a100-40": Gpu(40, 312),
    "a100-80": Gpu(80, 312),
    "h100": Gpu(80, 989.4),
    "h200": Gpu(141, 989.4),
}
SPARE = 0.1  # of the memory: fragments, and what the formula does not know
CONTEXT = 1.0  # GB: CUDA itself, cuBLAS workspaces
# Assumed share of the peak: rows end to end; one short row at a time, as in the official recipe.
UTILISATION = {True: 0.40, False: 0.15}

# Rows of the paper's stages (shared by the ratio of configs/mixtures.yaml), and tokens of a row's text: its characters
# by four, the system turn and the chat's own tokens with them. Clips add `Frame1: ` and so on: 8 tokens a frame.
PAPER = {
    "stage1": {"mosei.msa": 9000, "mosei.fer": 4500, "mosei.mer": 1500},
    "stage2": {"meld.mer": 4839, "mosei.eri": 4839, "ecf.ecpe": 4839, "mosei.msa": 1613},
}
TEXT = {"msa": 100, "mer": 100, "fer": 90, "eri": 130, "ecpe": 450}
ANSWER = 40  # answered tokens of a row, for the logits: longer than most
CLIPS = ("meld", "ecf")  # rows of these datasets show a clip, the others one picture
FRAMES = 8


def _truth(text: str) -> bool:
    return text.lower() == "true"


SETTINGS = length_plan.SETTINGS | {
    "gradient_checkpointing": (_truth, True),
    "padding_free": (_truth, False),
    "packing": (_truth, False),
    "lora_rank": (int, 8),
    "lora_dropout": (float, 0.05),
    "save_total_limit": (int, 2),
}


@dataclass(frozen=True)
class Options:
    """What a user may choose."""

    config: str = option(positional=True, metavar="CONFIG", help="a folder of configs/, or another")
    gpu: str = option(choices=tuple(GPUS), help="the GPU of each process")
    model: str | None = option(
        None, metavar="DIR", help="folder of the model, or 4b or 8b (default: as CONFIG is named)"
    )
    data: str | None = option(None, metavar="AMT", help="rows to count (default: the paper's sizes)")
    preset: str | None = option(None, metavar="NAME", help="a name of configs/presets, or a file")
    utilisation: float | None = option(
        None, metavar="SHARE", help="of the GPU's peak (0.40 where rows run end to end, else 0.15)"
    )


@dataclass(frozen=True)
class Model:
    """The sizes of an InternVL2 that memory and time depend on; weights in bf16, what is trained in float32."""

    layers: int
    hidden: int
    inner: int  # of the feed-forward network
    query: int  # all heads
    key: int  # all heads of keys
    heads: int
    vocabulary: int
    fused: bool  # queries, keys and values come from one matrix, gate and up from another, as in Phi-3
    tower_layers: int
    tower_hidden: int
    tower_inner: int
    patch: int
    side: int
    tokens_per_tile: int

    @classmethod
    def of(cls, config: InternVLConfig) -> Model:
        """The sizes that transformers' configuration states."""
        text, tower = config.text_config, config.vision_config
        size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return cls(
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            inner=text.intermediate_size,
            query=text.num_attention_heads * size,
            key=text.num_key_value_heads * size,
            heads=text.num_attention_heads,
            vocabulary=text.vocab_size,
            fused=text.model_type == "phi3",
            tower_layers=tower.num_hidden_layers,
            tower_hidden=tower.hidden_size,
            tower_inner=tower.intermediate_size,
            patch=tower.patch_size[0],
            side=tower.image_size[0],
            tokens_per_tile=config.image_seq_length,
        )

    @property
    def matrices(self) -> int:
        """Parameters of the language model's layers, which every token goes through."""
        attention = self.hidden * (2 * self.query + 2 * self.key)
        return self.layers * (attention + 3 * self.hidden * self.inner + 2 * self.hidden)

    @property
    def head(self) -> int:
        """Parameters of the output layer; those of the embedding are as many."""
        return self.vocabulary * self.hidden

    @property
    def shuffled(self) -> int:
        """Width of what the projector gets: the patches that become one token, side by side."""
        return self.tower_hidden * (self.patches - 1) // self.tokens_per_tile

    @property
    def projector(self) -> int:
        """Parameters of the projector."""
        return self.shuffled * (2 + self.hidden) + self.hidden * (self.hidden + 2)

    @property
    def patches(self) -> int:
        """Positions of a tile in the vision tower, the class token among them."""
        return (self.side // self.patch) ** 2 + 1

    @property
    def tower(self) -> int:
        """Parameters of the vision tower."""
        wide, inner = self.tower_hidden, self.tower_inner
        layer = 4 * wide * (wide + 1) + wide * inner * 2 + wide + inner + 6 * wide  # two norms, two scales
        return self.tower_layers * layer + wide * (3 * self.patch**2 + 1 + 1 + self.patches)

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.matrices + 2 * self.head + self.hidden + self.projector + self.tower

    @property
    def linears(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of a layer's matrices: where LoRA is."""
        h, q, k, i = self.hidden, self.query, self.key, self.inner
        mixed = [(h, q + 2 * k), (h, 2 * i)] if self.fused else [(h, q), (h, k), (h, k), (h, i), (h, i)]
        return [*mixed, (q, h), (i, h)]

    def lora(self, rank: int) -> int:
        """Parameters of the adapters."""
        return self.layers * rank * sum(map(sum, self.linears))

    def layer_bytes(self, rank: int, dropout: bool, mask: int = 1) -> int:
        """Bytes that a token leaves in one layer for the backward pass, under bf16.

        Norms keep their input in float32; attention queries, keys, values and result; the feed-forward network gate,
        up and the gate's activation. A frozen matrix keeps nothing, its adapter a copy of its input and with dropout
        a mask: of `mask` bytes a value, on a GPU one, on a CPU the four of a float32.
        """
        inputs = sum(inputs for inputs, _ in self.linears)
        norms = 2 * (4 * self.hidden + 4)
        attention = 2 * (2 * self.query + 2 * self.key) + 4 * self.heads
        adapters = 2 * rank * len(self.linears) + (2 + mask * dropout) * inputs
        return norms + attention + 2 * 3 * self.inner + adapters

    def kept(self, tokens: int, visual: int, answered: int, checkpointing: bool, layer: int) -> int:
        """Bytes that the forward pass leaves for the backward pass; `layer` is what `layer_bytes` gives."""
        layers = self.layers * tokens * (2 * self.hidden if checkpointing else layer)
        projector = visual * (2 * 2 * self.shuffled + 2 * 2 * self.hidden)
        head = 4 * tokens * self.hidden + answered * (2 * self.hidden + 4 * self.vocabulary)
        return layers + projector + head

    def memory(self, tokens: int, visual: int, answered: int, settings: dict[str, Any]) -> dict[str, float]:
        """GB that training takes at its peak, by what takes them, for the tokens that run together."""
        trained = self.lora(settings["lora_rank"]) + self.projector
        checkpointing = settings["gradient_checkpointing"]
        layer = self.layer_bytes(settings["lora_rank"], settings["lora_dropout"] > 0)
        # The backward pass through a layer: gradients of what it goes through, and with checkpointing all that the
        # layer leaves, made again. The logits' gradients come in float32, then in bf16.
        passing = tokens * (2 * (3 * self.inner + 3 * self.hidden) + 12 * self.hidden)
        passing += tokens * layer if checkpointing else 0
        logits = answered * self.vocabulary * (2 + 4 + 4)
        tiles = visual // self.tokens_per_tile
        seeing = tiles * self.patches * 2 * (5 * self.tower_hidden + 2 * self.tower_inner)
        parts = {
            "weights": 2 * self.parameters,
            "trained": trained * (4 + 4 + 8),  # in float32: itself, gradient, two states of AdamW
            "activations": self.kept(tokens, visual, answered, checkpointing, layer),
            "passing": max(passing, logits, seeing),
        }
        return {name: size / GB for name, size in parts.items()} | {"CUDA": CONTEXT}

    def operations(self, total: int, rows: Sequence[tuple[int, int]], answered: int, rank: int, again: bool) -> float:
        """Operations of training on rows of (tokens, visual tokens), `total` tokens with padding.

        A frozen matrix of N parameters: 2 N a token forward, 2 N backward for the input's gradient, 2 N when the layer
        is computed again. What is trained 2 N more. The vision tower runs forward alone.
        """
        visual = sum(seen for _, seen in rows)
        passes = 3 if again else 2
        squares = sum(tokens**2 for tokens, _ in rows)
        # Causal attention: half of 2 · 2 · tokens² · width forward, twice that backward.
        attention = self.layers * 2 * squares * self.query * (passes + 1)
        frozen = passes * 2 * self.matrices * total + 4 * self.head * answered * len(rows)
        trained = 2 * (passes + 1) * self.lora(rank) * total + 6 * self.projector * visual
        tiles = visual / self.tokens_per_tile
        looking = 2 * self.tower * self.patches + 4 * self.tower_layers * self.patches**2 * self.tower_hidden
        return attention + frozen + trained + tiles * looking


def model_of(name: str) -> Model:
    """The sizes of a model: 4b and 8b as published, or those in a folder; `InputError` for another."""
    from benchmarks.internvl2_sizes import full_config
    from swift_plugins.internvl2 import build_config, native_config

    if name in ("4b", "8b"):
        return Model.of(build_config(full_config("phi3" if name == "4b" else "internlm2"), image_token_id=5))
    if not (Path(name) / "config.json").is_file():
        raise InputError("is neither 4b nor 8b nor a model folder: it holds no config.json", name)
    try:
        return Model.of(native_config(name))
    except (AttributeError, KeyError, ValueError, OSError) as error:
        raise InputError(f"is no InternVL2, the only kind that is planned: {error}", name) from None


class Stage(NamedTuple):
    """What a stage trains on: (tokens, visual tokens) of each row, how many different clips, where known from."""

    rows: list[tuple[int, int]]
    clips: int
    source: str


def from_paper(stage: str, model: Model) -> Stage:
    """The paper's rows, with the texts' assumed lengths."""
    rows, clips = [], 0
    for channel, count in PAPER[stage].items():
        dataset, task = channel.split(".")
        frames = FRAMES if dataset in CLIPS else 1
        visual = frames * model.tokens_per_tile
        rows += [(visual + TEXT[task] + (8 * FRAMES if dataset in CLIPS else 0), visual)] * count
        clips += count if dataset in CLIPS else 0
    return Stage(rows, clips, "the paper's sizes, texts of assumed length")


def from_data(stage: str, model: Path, config: Path, data: Path, settings: dict[str, Any]) -> Stage:
    """The rows that the stage draws, measured with the model's tokenizer."""
    from swift_plugins.build_report import media_root

    own = config / "mixtures.yaml"
    mixtures = mixture.read_mixtures(os.environ.get("AMT_MIXTURES") or (own if own.is_file() else None))
    drawn = mixture.draw(mixtures, stage, data)
    drawn.check()
    rows = drawn.rows
    if turn := mixture.system_turn(data, "train"):
        settings = settings | {"system": turn}
    measured = length_plan.Meter(model, settings).measure(rows, media_root(data))
    clips = {path for row in rows for path in row.get("videos") or ()}
    pairs = zip(measured.total.tolist(), measured.visual.tolist(), strict=True)
    return Stage(list(pairs), len(clips), str(data))


def read_settings(config: Path, stage: str, preset: str | None, flags: Sequence[str]) -> dict[str, Any]:
    """SETTINGS of a stage as training has them: file, preset, flags."""
    first = length_plan.read_settings(config, stage, flags, SETTINGS)
    shared = batches.flags(preset, *(first[name] for name in batches.BATCH), length_plan.processes(), flags)
    return length_plan.read_settings(config, stage, [*shared, *flags], SETTINGS)


def together(rows: Sequence[tuple[int, int]], settings: dict[str, Any], most: int | None = None) -> tuple[int, int]:
    """(tokens, visual tokens) of the pass that takes most memory: the longest rows, padded where padding is."""
    longest = sorted(rows, reverse=True)[: most or settings["per_device_train_batch_size"]]
    visual = sum(seen for _, seen in longest)
    free = settings["padding_free"] or settings["packing"]
    return sum(tokens for tokens, _ in longest) if free else len(longest) * longest[0][0], visual


def need(model: Model, rows: Sequence[tuple[int, int]], settings: dict[str, Any], most: int | None = None) -> dict:
    """`Model.memory` of the pass that takes most."""
    count = min(len(rows), most or settings["per_device_train_batch_size"])
    return model.memory(*together(rows, settings, most), ANSWER * count, settings)


def fitting(model: Model, rows: Sequence[tuple[int, int]], settings: dict[str, Any], gpu: Gpu) -> int:
    """How many rows at a time fit, up to 64; 0 where none does."""
    fits = (n for n in range(64, 0, -1) if sum(need(model, rows, settings, n).values()) <= gpu.memory * (1 - SPARE))
    return next(fits, 0)


def hours(model: Model, stage: Stage, settings: dict[str, Any], gpu: Gpu, share: float) -> float:
    """Time of the stage's training on all processes, without start and data that comes too late."""
    total = sum(tokens for tokens, _ in stage.rows)
    again = settings["gradient_checkpointing"]
    epoch = model.operations(total, stage.rows, ANSWER, settings["lora_rank"], again)
    epochs = settings["num_train_epochs"]
    if settings["max_steps"] > 0:
        step = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"]
        epochs = settings["max_steps"] * step * length_plan.processes() / len(stage.rows)
    return epochs * epoch / (gpu.peak * 1e12 * share * length_plan.processes()) / 3600


def show(name: str, model: Model, stage: Stage, settings: dict[str, Any], gpu: Gpu, share: float | None) -> bool:
    """Print the plan of a stage; whether it fits."""
    free = settings["padding_free"] or settings["packing"]
    share = share or UTILISATION[free]
    tokens, at_a_time = sum(total for total, _ in stage.rows), settings["per_device_train_batch_size"]
    steps = length_plan.steps(len(stage.rows), settings, length_plan.processes())
    print(f"{name}, {stage.source}:")
    print(
        f"  {len(stage.rows):,} rows, {tokens:,} tokens an epoch ({sum(seen for _, seen in stage.rows):,} visual), "
        f"{settings['num_train_epochs']:g} epochs, {steps:,} steps of {length_plan.processes()} × {at_a_time} × "
        f"{settings['gradient_accumulation_steps']} rows"
    )
    cache = stage.clips * FRAMES * 3 * model.side**2 / GB
    trained = model.lora(settings["lora_rank"]) + model.projector
    saved = settings["save_total_limit"] * trained * (4 + 8) / GB
    print(
        f"  disk: {cache:.1f} GB for {stage.clips:,} prepared clips (at most AMT_CACHE_GB), {saved:.1f} GB checkpoints"
    )
    parts = need(model, stage.rows, settings)
    total, room = sum(parts.values()), gpu.memory * (1 - SPARE)
    fits = total <= room
    how = "computed again" if settings["gradient_checkpointing"] else "kept"
    told = ", ".join(f"{part} {size:.1f}" for part, size in parts.items())
    print(
        f"  memory, estimated: {total:.1f} GB of {room:.1f} ({gpu.memory} less {SPARE:.0%}) for the {at_a_time} longest"
        f" rows at a time, activations {how}: {'fits' if fits else 'DOES NOT FIT'} ({told})"
    )
    either = [fitting(model, stage.rows, settings | {"gradient_checkpointing": again}, gpu) for again in (False, True)]
    print("  rows at a time that fit: {} with activations kept, {} with gradient checkpointing".format(*either))
    print(f"  time, estimated: {hours(model, stage, settings, gpu, share):.1f} h at an assumed {share:.0%} of the peak")
    return fits


def main() -> int:
    """Plan both stages."""
    arguments = sys.argv[1:]
    place = arguments.index("--") if "--" in arguments else len(arguments)
    options, flags = parse(Options, __doc__, "python -m benchmarks.plan", arguments[:place]), arguments[place + 1 :]
    config = CONFIGS / options.config if (CONFIGS / options.config).is_dir() else Path(options.config)
    if not config.is_dir():
        raise InputError("is neither a folder of configs/ nor a folder", options.config)
    named = {"emoverse-4b": "4b", "emoverse-8b": "8b"}.get(config.name)
    name = options.model or named
    if name is None:
        raise InputError("is of no known size: add --model DIR, 4b or 8b", options.config)
    if options.data and name in ("4b", "8b"):
        raise InputError("--data needs --model DIR: tokens are counted with its tokenizer")
    if options.utilisation is not None and not 0 < options.utilisation <= 1:
        raise InputError(f"--utilisation must be above 0 and at most 1, not {options.utilisation:g}")
    os.environ.setdefault("LOG_LEVEL", "ERROR")  # ms-swift tells every setting otherwise
    data = mixture.data_root(options.data) if options.data else None
    if data and not data.is_dir():
        raise InputError("no such folder of AMT rows (python -m data_prep.build_amt makes it)", data)
    model, gpu, fits = model_of(name), GPUS[options.gpu], []
    count = length_plan.processes()
    print(
        f"{options.config}: {model.parameters / 1e9:.2f} B parameters; {count} × {options.gpu} ({gpu.memory} GB, "
        f"{gpu.peak:g} TFLOPS in bf16), preset {options.preset or 'none'}. GPU memory and time are estimated."
    )
    for stage in ("stage1", "stage2"):
        settings = read_settings(config, stage, options.preset, flags)
        counted = from_data(stage, Path(name), config, data, settings) if data else from_paper(stage, model)
        fits.append(show(stage, model, counted, settings, gpu, options.utilisation))
    return 0 if all(fits) else 1


if __name__ == "__main__":
    run_cli(main)
