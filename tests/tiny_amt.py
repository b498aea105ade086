"""A small AMT folder for tests that train: every channel of both stages, with pictures, clips, two clips, text only.

data = tiny_amt(tmp_path / "amt")         # media inside; AMT_DATA=data AMT_MEDIA=data AMT_MIXTURES=data/mixtures.yaml
"""

from pathlib import Path

import numpy as np
from PIL import Image

from swift_plugins.files import write_rows
from tests.test_frames import write_clip
from tests.test_sound import write_sound

ROWS = {"mosei.msa": 40, "mosei.fer": 20, "mosei.mer": 12, "meld.mer": 12, "mosei.eri": 12, "ecf.ecpe": 12}
ANSWERS = {
    "msa": ("Positive.", "Negative."),
    "fer": ("cheek raiser; lip corner puller", "brow lowerer"),
    "mer": ("Neutral.", "Anger.", "Sadness."),
    "eri": ("She laughs at the joke.", "He has lost his keys."),
    "ecpe": ("2_anger,1", "3_sadness,2;3_sadness,3"),
}
MIXTURES = """
seed: 42
stages:
  stage1:
    size: 40
    tasks:
      msa: {weight: 6, sources: [mosei.msa]}
      fer: {weight: 3, sources: [mosei.fer]}
      mer: {weight: 1, sources: [mosei.mer]}
  stage2:
    size: 30
    after: [stage1]
    tasks:
      mer: {weight: 3, sources: [meld.mer]}
      eri: {weight: 3, sources: [mosei.eri]}
      ecpe: {weight: 3, sources: [ecf.ecpe]}
      msa: {weight: 1, sources: [mosei.msa]}
"""


def tiny_amt(folder: Path, sound: bool = False) -> Path:
    """Write rows, media and a mixtures file; the query of every row is unique.

    sound: rows with a picture or clip list sounds, too, one of which, of a silent clip, is none.
    """
    folder.mkdir(parents=True)
    for i in range(2):
        write_clip(folder / f"clip{i}.mp4", n=20 + i)
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (40, 50, 3), np.uint8)).save(folder / f"{i}.png")
    if sound:
        write_sound(folder / "0.wav", 440, 8_000)
    for channel, count in ROWS.items():
        task = channel.split(".")[1]
        heard = {"audios": ["0.wav"]} if sound else {}
        both = {"audios": ["0.wav", "clip1.mp4"]} if sound else {}
        media = {
            "msa": [{"images": ["0.png"], **heard}, {}],
            "fer": [{"images": ["1.png"]}],
            "mer": [{"videos": ["clip0.mp4"], **heard}, {}],
            "eri": [{"images": ["0.png", "1.png"]}, {"videos": ["clip1.mp4"], **heard}],
            "ecpe": [{"videos": ["clip0.mp4", "clip1.mp4"], **both}, {}],
        }[task]
        for split, rows in (("train", count), ("test", 2)):
            write_rows(
                folder / f"{channel}.{split}.jsonl",
                (
                    {
                        "id": f"{channel}/{split}/{i}",
                        "channel": channel,
                        "query": f"{channel} {split} {i}",
                        "response": ANSWERS[task][i % len(ANSWERS[task])],
                        **media[i % len(media)],
                    }
                    for i in range(rows)
                ),
            )
    (folder / "mixtures.yaml").write_text(MIXTURES)
    return folder
