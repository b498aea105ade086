"""Peak memory and time of one training step of a full-size random InternVL2 with the official batch settings.

    python benchmarks/gpu_step.py                     # 4B in bf16 on the GPU: one stage-1 and one stage-2 step
    python benchmarks/gpu_step.py --kind internlm2    # 8B
    python benchmarks/gpu_step.py --tiny --device cpu # only that it runs

Official settings: batch 1, 8 rows accumulated, gradient checkpointing; LoRA r 8, alpha 32 on the language model, the
projector in full. Stage 1: one picture and a sentence a row; stage 2: a clip (8 frames, 2,048 visual tokens) and a
conversation. Weights are random: memory and time do not depend on their values.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import InternVLForConditionalGeneration

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.internvl2_sizes import full_config, tiny_config
from swift_plugins.internvl2 import build_config

STAGES = {"stage 1": (1, 120), "stage 2": (8, 900)}  # pictures, text tokens of a row
ACCUMULATED, STEPS = 8, 3


def model_of(kind: str, tiny: bool, device: str) -> torch.nn.Module:
    """The model as configs/emoverse-* train it."""
    config = build_config(tiny_config(kind) if tiny else full_config(kind), image_token_id=5)
    with torch.device(device):
        model = InternVLForConditionalGeneration._from_config(config, dtype=torch.bfloat16)
    model.config.use_cache = False
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    lora = LoraConfig(
        r=8,
        lora_alpha=32,
        lora_dropout=0.05,
        target_modules=r".*language_model.*\.(qkv|[qkvo]|gate_up|gate|up|down)_proj",
        modules_to_save=["multi_modal_projector"],
    )
    return get_peft_model(model, lora).train()


def row(model: torch.nn.Module, pictures: int, words: int, device: str) -> dict[str, torch.Tensor]:
    config = model.config
    side = config.vision_config.image_size[0]
    ids = torch.randint(10, 200, (1, words), device=device)
    visual = torch.full((1, pictures * config.image_seq_length), config.image_token_id, device=device)
    ids = torch.cat([visual, ids], dim=1)
    labels = ids.clone()
    labels[:, :-10] = -100
    pixels = torch.randn(pictures, 3, side, side, device=device, dtype=torch.bfloat16)
    return {"input_ids": ids, "labels": labels, "pixel_values": pixels, "attention_mask": torch.ones_like(ids)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=["phi3", "internlm2"], default="phi3")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, to see that the script runs")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("error: no GPU here; --tiny --device cpu only shows that the script runs")
    model = model_of(args.kind, args.tiny, args.device)
    gpu = args.device == "cuda"
    print(f"{args.kind}, {model.get_base_model().num_parameters() / 1e9:.2f} B parameters,", end=" ")
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name() if gpu else 'CPU'}")
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-5)
    for stage, (pictures, words) in STAGES.items():
        times = []
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        for _ in range(STEPS):
            start = time.perf_counter()
            for _ in range(ACCUMULATED):
                (model(**row(model, pictures, words, args.device)).loss / ACCUMULATED).backward()
            optimizer.step()
            optimizer.zero_grad()
            if gpu:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        peak = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if gpu else "not measured"
        print(f"{stage}: {min(times[1:]):.2f} s a step of {ACCUMULATED} rows (first {times[0]:.2f} s), peak {peak}")


if __name__ == "__main__":
    main()
