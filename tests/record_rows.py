"""A plugin for tests: the project's own, and every row that a loader worker encodes is written to the file RECORD.

SLOW seconds are spent on each row, so that a test has time to kill the training half-way.
"""

import json
import os
import time

import torch

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
