"""Clips to try the app with: drawn faces and their Action Units, made anew at every start. Nobody's face is in them."""

from __future__ import annotations

import random
from pathlib import Path

from data_prep.demo.faces import random_clip
from data_prep.demo.layouts import facs, write_clip
from data_prep.demo.words import sentence

EMOTIONS = {"joy": 1, "sadness": -1, "anger": -1, "surprise": 1}


def make_examples(folder: Path, seed: int = 1) -> list[list[str]]:
    """[clip, transcript, table of Action Units] of each, files in `folder`."""
    rng, made = random.Random(seed), []
    for emotion, polarity in EMOTIONS.items():
        clip = random_clip(rng, "examples", f"{emotion}.mp4", emotion, emotion, 1, facs()[0])
        write_clip(folder, False, clip)
        table = folder / "examples" / "openface" / f"{emotion}.csv"
        made.append([str(folder / "examples" / clip.path), sentence(rng, emotion, polarity, True), str(table)])
    return made
