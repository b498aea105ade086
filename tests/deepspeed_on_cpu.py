"""A plugin for tests: `record_rows`, and where there is no GPU what DeepSpeed needs to train over gloo instead.

transformers does not tell accelerate a backend with DeepSpeed, and accelerate knows none for a CPU: it would take every
process for the only one. DeepSpeed itself would compile a faster all-reduce first, which takes minutes.
"""

import os

import torch

if not torch.accelerator.is_available():
    import deepspeed.comm.torch
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    os.environ["ACCELERATE_USE_CPU"] = "false"  # before the plugin says otherwise, for training without DeepSpeed
    PartialState._prepare_backend = lambda self, *args, **kwargs: ("gloo", DistributedType.NO)
    deepspeed.comm.torch.build_shm_op = lambda: None

import tests.record_rows  # noqa: F401
