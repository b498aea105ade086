"""A plugin for tests: the project's own, and every row that a loader worker encodes is written to the file RECORD.

SLOW seconds are spent on each row, so that a test has time to kill the training half-way. RECORD.weights gets a line
per process when training ends: its rank, and the sum of every weight that was trained.
"""

import json
import os
import time

import torch
from transformers import Trainer

import swift_plugins.emoverse  # noqa: F401
from swift_plugins.template import EmoverseTemplate

encode = EmoverseTemplate._encode


def record(self, inputs):
    query = inputs.messages[0]["content"]
    if torch.utils.data.get_worker_info() is not None:  # not the sample that is printed at the start
        with open(os.environ["RECORD"], "a", encoding="utf-8") as file:
            file.write(json.dumps({"rank": os.environ.get("RANK", "0"), "query": query}) + "\n")
        time.sleep(float(os.environ.get("SLOW", "0")))
    return encode(self, inputs)


EmoverseTemplate._encode = record
train = Trainer.train


def train_and_record(self, *args, **kwargs):
    result = train(self, *args, **kwargs)
    weights = {name: p.double().sum().item() for name, p in self.model.named_parameters() if p.requires_grad}
    with open(os.environ["RECORD"] + ".weights", "a", encoding="utf-8") as file:
        file.write(json.dumps({"rank": os.environ.get("RANK", "0"), "weights": weights}) + "\n")
    return result


Trainer.train = train_and_record
