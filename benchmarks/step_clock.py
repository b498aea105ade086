"""A plugin for benchmarks: the project's own, and the file STEP_CLOCK gets (seconds, rows, tokens, peak MB) of a step.

Rows and tokens (of the batch as the model gets it, padding included) are those of this process. PROFILE=N prints after
step 5 where the time of the next N steps went: the ten operators that took most.
"""

import json
import os
import resource
import time

import torch
from transformers import TrainerCallback
from transformers.trainer import Trainer

import swift_plugins.emoverse  # noqa: F401

STEPS = int(os.environ.get("PROFILE", "0"))
seen = {"rows": 0, "tokens": 0}
step = Trainer.training_step


def counted(self, model, inputs, *args, **kwargs):
    ids = inputs["input_ids"]
    packed = inputs.get("position_ids") if ids.shape[0] == 1 else None
    seen["rows"] += int((packed == 0).sum()) if packed is not None else len(ids)
    seen["tokens"] += ids.numel()
    return step(self, model, inputs, *args, **kwargs)


def peak() -> int:
    """The most memory so far, in MB: the GPU's where there is one, else resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


class Clock(TrainerCallback):
    """Writes a line when a step has ended; profiles."""

    profile = None

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 5 and STEPS:
            self.profile = torch.profiler.profile()
            self.profile.start()
        if state.global_step == 5 + STEPS and self.profile:
            self.profile.stop()
            key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
            print(self.profile.key_averages().table(sort_by=key, row_limit=10, max_name_column_width=40))

    def on_step_end(self, args, state, control, **kwargs):
        with open(os.environ["STEP_CLOCK"], "a", encoding="utf-8") as file:
            file.write(json.dumps([time.perf_counter(), *seen.values(), peak()]) + "\n")
        seen.update(rows=0, tokens=0)


train = Trainer.train


def with_clock(self, *args, **kwargs):
    self.add_callback(Clock())
    return train(self, *args, **kwargs)


Trainer.training_step, Trainer.train = counted, with_clock
