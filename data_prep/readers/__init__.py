"""The datasets that the pipeline reads: the one list that build_amt, doctor, fer and eri share.

A reader is a module with `read(root, split, faults) -> Iterator[Sample]`. To add one: write it, add its line here.
"""

from __future__ import annotations

from types import ModuleType

from data_prep.readers import ecf, meld, mosei

SPLITS = ("train", "dev", "test")

READERS: dict[str, ModuleType] = {"meld": meld, "ecf": ecf, "mosei": mosei}
