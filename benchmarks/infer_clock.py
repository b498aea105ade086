"""A plugin for benchmarks: the project's own, and the file STEP_CLOCK gets rows a second and peak MB of answers."""

import json
import os
import time

from swift.pipelines.infer import SwiftInfer

import swift_plugins.emoverse  # noqa: F401
from benchmarks.step_clock import peak

answer = SwiftInfer.infer_dataset


def timed(self):
    start = time.perf_counter()
    rows = answer(self)
    with open(os.environ["STEP_CLOCK"], "w", encoding="utf-8") as file:
        json.dump([len(rows) / (time.perf_counter() - start), peak()], file)
    return rows


SwiftInfer.infer_dataset = timed
