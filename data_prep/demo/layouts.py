"""Synthetic datasets in the raw layouts of MELD, CMU-MOSEI (MMSA) and ECF: annotations, clips, Action Units, the truth.

`generate` writes them; `python -m data_prep.demo` is its command line and says what is in them.
"""

from __future__ import annotations

import csv
import io
import multiprocessing
import os
import random
import shutil
import string
import tempfile
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
from PIL import Image

from data_prep.demo.faces import (
    FPS,
    INTENSITIES,
    LANDMARKS,
    PRESENCES,
    SIDE,
    DrawnClip,
    draw_frame,
    outline,
    random_clip,
)
from data_prep.demo.voices import voice
from data_prep.demo.words import EMOTIONS, Line, conversation, dialogue, emotion_and_polarity, sentence
from data_prep.doctor.leakage import ConversationIndex, compare
from data_prep.readers.sample import Sample, conversation_id
from swift_plugins.files import CONFIGS, InputError, read_yaml, write_json, write_rows
from swift_plugins.progress import progress
from swift_plugins.sound import RATE

COLUMNS = (
    ["frame", "face_id", "timestamp", "confidence", "success"]
    + [f"{axis}_{point}" for axis in "xy" for point in range(LANDMARKS)]
    + [f"AU{n:02d}_r" for n in INTENSITIES]
    + [f"AU{n:02d}_c" for n in PRESENCES]
)

# clips (MOSEI), dialogues (MELD) and conversations (ECF) per split
SIZES = {
    "small": {
        "mosei": {"train": 640, "valid": 40, "test": 120},
        "meld": {"train": 80, "dev": 8, "test": 24},
        "ecf": {"train": 90, "test": 28},
    },
    "ablation": {
        "mosei": {"train": 1200, "valid": 30, "test": 240},
        "meld": {"train": 80, "dev": 6, "test": 36},
        "ecf": {"train": 90, "dev": 6, "test": 56},
    },
    "sentences": {
        "mosei": {"train": 640, "valid": 6, "test": 240},
        "meld": {"train": 5, "dev": 2, "test": 3},
        "ecf": {"train": 6, "test": 3},
    },
    "tiny": {
        "mosei": {"train": 24, "valid": 6, "test": 12},
        "meld": {"train": 5, "dev": 2, "test": 3},
        "ecf": {"train": 6, "test": 3},
    },
}

# Emotions have MELD's names; MOSEI's columns have their own.
MOSEI_NAME = {"joy": "happy", "sadness": "sad"}


def facs() -> tuple[dict[str, list[int]], dict[int, str]]:
    """AU numbers per emotion and the first phrase per AU, of configs/facs.yaml."""
    table = read_yaml(CONFIGS / "facs.yaml")
    aliases, sets = table["aliases"], table["emotions"]
    numbers = {e: [int(au[2:]) for au in sets.get(aliases.get(e, e), ())] for e in EMOTIONS}
    return numbers, {int(au[2:]): entry["phrases"][0] for au, entry in table["aus"].items()}


# Files of one clip


def encode(frames: Sequence[Image.Image], sound: np.ndarray | None = None) -> bytes:
    """An mp4 with one h264 stream, single-threaded so that the bytes do not depend on the machine's cores.

    sound: (samples,) int16 at 16 kHz, for an AAC stream beside it.
    """
    target = io.BytesIO()
    with av.open(target, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "20", "g": "8"})
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, FPS)
        if sound is not None:
            exact = {"flags": "+bitexact"}  # else the encoder writes its version
            heard = container.add_stream("aac", rate=RATE, layout="mono", bit_rate=48_000, options=exact)
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_image(image)
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            frame = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
            frame.rate, frame.pts = RATE, 0
            container.mux(heard.encode(frame))
            container.mux(heard.encode(None))
    return target.getvalue()


def openface_rows(clip: DrawnClip) -> Iterator[list[str]]:
    """The data rows of the clip's AU table: one per frame and face, as FeatureExtraction or FaceLandmarkVidMulti."""
    for frame in range(clip.frames):
        head = f"{frame / FPS:.3f}"
        for face in clip.faces:
            values = face.intensities(frame)
            yield (
                [str(frame + 1), str(face.slot), head, "0.98", "1"]
                + [f"{value:.1f}" for value in outline(face, frame)]
                + [f"{values[au]:.2f}" for au in INTENSITIES]
                + [f"{float(values[au] >= 1):.2f}" for au in PRESENCES]
            )
        if clip.phantom is not None and frame < clip.frames // 2:
            yield (
                [str(frame + 1), str(clip.phantom), head, "0.02", "0"]
                + ["0.0"] * 2 * LANDMARKS
                + ["1.50"] * 17
                + ["1.00"] * 18
            )


def write_clip(root: Path, sound: bool, clip: DrawnClip) -> None:
    """Write the clip, with a voice if it is to have `sound`, and its AU table under root/<dataset>."""
    path = root / clip.dataset / clip.path
    path.parent.mkdir(parents=True, exist_ok=True)
    heard = voice(clip.name, clip.emotion, clip.frames / FPS) if sound else None
    path.write_bytes(encode([draw_frame(clip, frame) for frame in range(clip.frames)], heard))
    table = (root / clip.dataset / "openface" / clip.path).with_suffix(".csv")
    table.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(row) for row in (COLUMNS, *openface_rows(clip))]
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")


class Dialogues:
    """Dialogues of all datasets and splits, none of which stands in another one by the doctor's leakage search."""

    def __init__(self) -> None:
        self.splits: list[ConversationIndex] = []
        self.drawn: dict[str, list[list[Line]]] = {}  # `meld/test` → its dialogues

    def draw(self, make: Callable[[], list[Line]], dataset: str, split: str, count: int) -> list[list[Line]]:
        """So many new ones; what repeats another one is made again."""
        made: dict[str, list[Line]] = {}
        again = {f"{dataset}/{split}/dia{number}" for number in range(count)}
        while again:
            made |= {key: make() for key in sorted(again)}
            lines = [
                Sample(f"{key}_utt{index}", dataset, split, line.text, line.speaker, index=index)
                for key, lines in made.items()
                for index, line in enumerate(lines)
            ]
            drawn = ConversationIndex(lines)
            again = set(compare(drawn, drawn).conversations)
            for other in self.splits:
                again |= {conversation_id(link.right) for link in compare(other, drawn).links}
        self.splits.append(drawn)
        self.drawn[f"{dataset}/{split}"] = list(made.values())
        return list(made.values())


# Datasets: each writes its annotations and returns its clips


def _people(rng: random.Random) -> int:
    return rng.choices((1, 2, 3), (78, 15, 7))[0]


def _stamp(seconds: float) -> str:
    millis = round(seconds * 1000)
    return f"{millis // 3600000:02d}:{millis // 60000 % 60:02d}:{millis // 1000 % 60:02d},{millis % 1000:03d}"


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]], newline: str = "\n") -> None:
    """A CSV file with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator=newline).writerows([header, *rows])


def write_mosei(root: Path, seed: int, counts: dict[str, int], aus: dict, phrases: dict) -> list[DrawnClip]:
    """label.csv (MMSA), emotions.csv (intervals and the six emotions) and eri.jsonl."""
    labels, emotions, reasons, clips = [], [], [], []
    columns = ("happy", "sad", "anger", "surprise", "disgust", "fear")
    for mode, count in counts.items():
        rng = random.Random(f"{seed}/mosei/{mode}")
        made = 0
        while made < count:
            letters = string.digits if rng.random() < 0.1 else string.ascii_letters + string.digits + "_"
            video = "".join(rng.choices(letters, k=11))
            start, clip_id = rng.uniform(0, 4), rng.randrange(0, 3)
            for _ in range(min(rng.randint(2, 6), count - made)):
                made += 1
                emotion, polarity = emotion_and_polarity(rng)
                text = sentence(rng, emotion, polarity)
                strong = emotion not in ("neutral", "surprise")
                score = polarity * rng.randint(2 if strong else 1, 9 if strong else 5) / 3
                clip = random_clip(
                    rng,
                    "mosei",
                    f"Raw/{video}/{clip_id}.mp4",
                    f"mosei/{'dev' if mode == 'valid' else mode}/{video}/{clip_id}",
                    emotion,
                    _people(rng),
                    aus,
                )
                clips.append(clip)
                end = start + clip.frames / FPS
                annotation = "Positive" if score > 0 else "Negative" if score < 0 else "Neutral"
                labels.append([video, clip_id, text, round(score, 4), "", "", "", annotation, mode])
                name = MOSEI_NAME.get(emotion, emotion)
                values = dict.fromkeys(columns, 0.0)
                if name in values:
                    values[name] = rng.choice((1.0, 1.3333334, 1.6666666, 2.0, 2.6666667))
                    if rng.random() < 0.3:
                        values[rng.choice([column for column in columns if column != name])] = 0.33333334
                interval = [round(start, 3), round(end, 3), round(score, 7)]
                emotions.append([video, clip_id, *interval, *values.values(), mode])
                if emotion != "neutral":
                    speaker = max(clip.faces, key=lambda face: sum(face.peak.values()))
                    seen = [phrases[au] for au in aus[emotion] if speaker.peak.get(au, 0) >= 1]
                    reasons.append(_reason(clip, text, name, seen))
                start, clip_id = end + rng.uniform(0.2, 1), clip_id + rng.choice((1, 1, 2))
    folder = root / "mosei"
    header = "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode"
    write_csv(folder / "label.csv", header.split(","), labels)
    header = ["video_id", "clip_id", "start", "end", "sentiment", *columns, "mode"]
    write_csv(folder / "emotions.csv", header, emotions)
    write_rows(folder / "eri.jsonl", reasons)
    return clips


def _reason(clip: DrawnClip, text: str, label: str, seen: Sequence[str]) -> dict:
    """An eri.jsonl record: clues, and the reason that somebody looking at the clip would give."""
    face = f"the face shows {' and '.join(seen)}" if seen else "the face stays calm"
    people = ("one person", "two people", "three people")[len(clip.faces) - 1]
    return {
        "id": clip.name,
        "reason": f"{face[0].upper()}{face[1:]}, and the words are: {text.rstrip('.!')}. So the emotion is {label}.",
        "clues": {"character": face, "scene": f"{people} in front of a plain wall"},
        "label": label,
    }


def write_meld(root: Path, seed: int, counts: dict[str, int], aus: dict, dialogues: Dialogues) -> list[DrawnClip]:
    """{train,dev,test}_sent_emo.csv, CRLF like the published ones."""
    clips = []
    folders = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
    header = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
    for split, count in counts.items():
        rng = random.Random(f"{seed}/meld/{split}")
        rows = []
        for number, lines in enumerate(dialogues.draw(lambda rng=rng: dialogue(rng), "meld", split, count)):
            clock = rng.uniform(30, 1200)
            for utterance, line in enumerate(lines):
                stem = f"dia{number}_utt{utterance}"
                path, name = f"{folders[split]}/{stem}.mp4", f"meld/{split}/{stem}"
                clip = random_clip(rng, "meld", path, name, line.emotion, _people(rng), aus)
                clips.append(clip)
                sentiment = ("neutral", "positive", "negative")[line.polarity]
                end = clock + clip.frames / FPS
                row = [len(rows) + 1, line.text, line.speaker, line.emotion, sentiment, number, utterance]
                rows.append([*row, 1, 1 + number % 9, _stamp(clock), _stamp(end)])
                clock = end + 0.2
        write_csv(root / "meld" / f"{split}_sent_emo.csv", header.split(","), rows, newline="\r\n")
    return clips


def write_ecf(
    root: Path, seed: int, counts: dict[str, int], aus: dict, dialogues: Dialogues, leak: bool = False
) -> list[DrawnClip]:
    """Subtask_2_{train,test}.json; conversation ids go on counting from train to test, as in ECF 2.0.

    leak: the last training conversation is MELD's first test dialogue: both are cut from one series, the real ones too.
    """
    clips, number = [], 0
    for split, count in counts.items():
        rng = random.Random(f"{seed}/ecf/{split}")
        document = []
        scripts = dialogues.draw(lambda rng=rng: conversation(rng, recent=0.8), "ecf", split, count)
        if leak and split == "train":
            scripts.append(dialogues.drawn["meld/test"][0])
        for lines in scripts:
            number += 1
            utterances, pairs = [], []
            for index, line in enumerate(lines, 1):
                video = f"dia{number}utt{index}.mp4"
                utterances.append(
                    {
                        "utterance_ID": index,
                        "text": line.text,
                        "speaker": line.speaker,
                        "emotion": line.emotion,
                        "video_name": video,
                    }
                )
                pairs += [[f"{index}_{line.emotion}", str(cause)] for cause in line.causes]
                name = f"ecf/{split}/dia{number}utt{index}"
                clips.append(random_clip(rng, "ecf", f"{split}/{video}", name, line.emotion, _people(rng), aus))
            document.append({"conversation_ID": number, "conversation": utterances, "emotion-cause_pairs": pairs})
        write_json(root / "ecf" / f"Subtask_2_{split}.json", document)
    return clips


# Everything


def _truth(clip: DrawnClip) -> dict:
    return {
        "id": clip.name,
        "video": f"{clip.dataset}/{clip.path}",
        "frames": clip.frames,
        "fps": FPS,
        "faces": [
            {
                "face_id": face.slot,
                "apex": face.apex,
                "aus": {f"AU{au:02d}": value for au, value in face.peak.items() if value >= 1},
            }
            for face in clip.faces
        ],
    }


def write_datasets(root: Path, seed: int, size: str, aus: dict, phrases: dict, leak: bool = False) -> list[DrawnClip]:
    """The annotations of the three datasets under `root`; returns the clips to draw."""
    clips: list[DrawnClip] = []
    sizes, dialogues = SIZES[size], Dialogues()
    clips += write_mosei(root, seed, sizes["mosei"], aus, phrases)
    clips += write_meld(root, seed, sizes["meld"], aus, dialogues)
    clips += write_ecf(root, seed, sizes["ecf"], aus, dialogues, leak)
    return clips


def generate(
    out: Path,
    seed: int = 0,
    size: str = "small",
    leak: bool = False,
    sound: bool = False,
    write: Callable[[Path, int, str, dict, dict], list[DrawnClip]] | None = None,
) -> int:
    """Write the three datasets into the new folder `out`, all or nothing; return the number of clips.

    size: "small" is what the demo trains on, "tiny" is for tests. leak: see `write_ecf`. sound: the clips have a
    sound track (`data_prep.demo.voices`); all else is as without. The same seed gives the same bytes. write: what
    writes other annotations instead of theirs, as `write_datasets` does.

    Raises InputError when `out` exists and is not an empty folder, or cannot be made.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("exists already; name a new folder or remove this one first", out)
    aus, phrases = facs()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        root = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise InputError(f"cannot write there: {error.strerror}", out) from None
    try:
        clips = (write or partial(write_datasets, leak=leak))(root, seed, size, aus, phrases)
        write_rows(root / "truth.jsonl", map(_truth, clips))
        with multiprocessing.get_context("spawn").Pool(min(os.cpu_count() or 1, 8)) as pool:
            written = pool.imap_unordered(partial(write_clip, root, sound), clips, chunksize=16)
            for _ in progress(written, desc="clips", unit="clip", total=len(clips)):
                pass
        root.chmod(0o755)
        os.replace(root, out)
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise
    return len(clips)
