"""Run the frozen vision tower once over every clip and picture of AMT rows, and keep what the projector takes of it.

    python -m data_prep.features --model /models/InternVL2-4B --data amt --out features
    AMT_FEATURES=features MODEL=/models/InternVL2-4B DATA=amt bash shell/first_stage.sh      # reads it

What it will need on the disk is printed first, and refused where it does not fit. The same command goes on after a
kill: what is there and whole is not made again. A clip that cannot be decoded is named, and the status is 1 at the end;
training looks at it, and at any other that is not prepared, as it would without. Frames and tiles are those of
training: VIDEO_SEGMENTS (or --frames), MAX_NUM and VIDEO_MAX_NUM. A merged export with the same tower shares them.

    python -m data_prep.features --encoder hubert --help      # the encoders of Emotion-LLaMA: sound, frames, faces
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.readers import SPLITS
from swift_plugins import TRAINING, mixture, need
from swift_plugins.build_report import media_root
from swift_plugins.files import InputError, described, hold
from swift_plugins.options import option, parse
from swift_plugins.progress import progress

if TYPE_CHECKING:
    import torch

    from swift_plugins.features import Features
    from swift_plugins.template import EmoverseTemplate

HEADER = 8192  # bytes of an entry beside its tiles, at most: its key, and what the file system rounds up
DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True)
class Options:
    """The command line of `python -m data_prep.features`."""

    model: Path = option(metavar="DIR", help="folder of the base model: the original layout or a merged export")
    out: Path = option(metavar="DIR", help="where the features go; AMT_FEATURES then names it")
    data: str | None = option(None, metavar="DIR", help="folder of AMT rows (AMT_DATA)")
    split: tuple[str, ...] = option(SPLITS, choices=SPLITS, help="one or more (all)")
    frames: int | None = option(None, metavar="N", help="frames of a clip (VIDEO_SEGMENTS, else 8)")
    dtype: str | None = option(
        None, choices=DTYPES, help="what training computes in, torch_dtype of its config (the checkpoint's own)"
    )
    batch: int = option(32, metavar="N", help="tiles that the tower sees at a time (32)")
    jobs: int = option(-1, metavar="N", help="processes that decode (all cores; 0: this one)")
    device: str = option("auto", help="auto, cpu, cuda, cuda:1 …")


@dataclass(frozen=True)
class Medium:
    """A file that rows name, and whether as a video."""

    path: str
    video: bool


def main() -> int:
    """Plan, refuse or prepare; 1 where a file could not be prepared."""
    options = parse(Options, __doc__, "python -m data_prep.features")
    if options.batch < 1 or options.jobs < -1 or (options.frames is not None and options.frames < 1):
        raise InputError("--batch and --frames are 1 or more, --jobs is -1 or more")
    if not (options.model / "config.json").is_file():
        raise InputError("is not a model folder: it holds no config.json", options.model)
    data = mixture.data_root(options.data)
    if not data.is_dir():
        raise InputError("no such folder of AMT rows (python -m data_prep.build_amt makes it)", data)
    need(*TRAINING)
    os.environ.setdefault("LOG_LEVEL", "ERROR")  # ms-swift tells every setting otherwise
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    media = named_media(data, options.split)
    template = _template(options)
    features = _features(options, template)
    with hold(options.out / ".lock", options.out):
        features.begin({kind: template.rule(kind == "video") for kind in ("video", "image")})
        with progress(media, unit="file", desc="there already") as bar:
            todo = [medium for medium in bar if not _is_done(medium, features, template)]
        _plan(options, media, todo, template, features)
        failed = _prepare(todo, options, template, features) if todo else 0
    print(f"{len(media) - failed:,} of {len(media):,} are prepared: AMT_FEATURES={options.out}")
    return int(failed > 0)


def named_media(data: Path, splits: Sequence[str]) -> list[Medium]:
    """The distinct files that the rows of some splits name; `InputError` where there are no rows."""
    files = [path for split in splits for path in sorted(data.glob(f"*.*.{split}.jsonl"))]
    if not files:
        raise InputError(f"holds no rows of {', '.join(splits)} (<dataset>.<task>.<split>.jsonl)", data)
    root, found = media_root(data), {}
    for path in files:
        for row in mixture.check_rows(path, path.name.rsplit(".", 2)[0]):
            for video, key in ((False, "images"), (True, "videos")):
                for name in row.get(key) or ():
                    found.setdefault(Medium(os.path.normpath(root / name), video))
    return [*found]


def _template(options: Options) -> EmoverseTemplate:
    """The template that training uses: what it makes of a file is what the tower gets."""
    import torch
    from swift.model import get_processor
    from swift.template import get_template

    import swift_plugins.emoverse  # noqa: F401  registers our models and templates

    dtype = getattr(torch, options.dtype) if options.dtype else None
    try:
        processor = get_processor(str(options.model), model_type="emoverse", torch_dtype=dtype, download_model=False)
        template = get_template(processor)
    except (ValueError, OSError, KeyError) as error:
        raise InputError(f"cannot be loaded: {error}", options.model) from None
    template.video_segments = options.frames or template.video_segments
    return template


def _features(options: Options, template: EmoverseTemplate) -> Features:
    from swift_plugins.features import Features

    vision = template.config.vision_config
    if vision.hidden_dropout_prob or vision.attention_dropout or vision.projection_dropout:
        raise InputError("its vision tower drops at random while it trains: nothing to prepare", options.model)
    return Features(options.out, options.model, template.config, template.model_info.torch_dtype)


def _is_done(medium: Medium, features: Features, template: EmoverseTemplate) -> bool:
    try:
        return features.cache.load(features.key(medium.path, template.rule(medium.video))) is not None
    except OSError:
        return False


def _plan(
    options: Options, media: Sequence[Medium], todo: Sequence[Medium], template: EmoverseTemplate, features: Features
) -> None:
    """Print what the rest needs; `InputError` where the disk has less."""
    config, clips = template.config, sum(medium.video for medium in media)
    width = config.vision_config.hidden_size / config.downsample_ratio**2
    tile = int(config.image_seq_length * width * features.dtype.itemsize)
    tiles = 0
    for medium in todo:
        rule = template.rule(medium.video)
        tiles += rule.get("frames", 1) * (rule["tiles"] + (rule["tiles"] > 1))  # InternVL2's thumbnail
    needed = tiles * tile + len(todo) * HEADER
    free = shutil.disk_usage(options.out).free
    print(
        f"{clips:,} clips of {template.video_segments} frames and {len(media) - clips:,} pictures, "
        f"{len(media) - len(todo):,} of them there already\n"
        f"{tile:,} bytes a tile in {features.tower['dtype']}, {tiles:,} tiles at most: {_size(needed)}, "
        f"and {_size(free)} are free",
        flush=True,
    )
    if needed > free:
        raise InputError(f"the disk is too small: {_size(needed)} are needed, {_size(free)} free", options.out)


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"


class _Decoded:
    """The media to be prepared, for the processes of a DataLoader: (key, tiles of each picture), or (None, reason)."""

    def __init__(self, media: Sequence[Medium], template: EmoverseTemplate, features: Features):
        self.media, self.template, self.features = media, template, features

    def __len__(self) -> int:
        return len(self.media)

    def __getitem__(self, place: int) -> tuple[dict | None, list[torch.Tensor] | str]:
        medium, template = self.media[place], self.template
        try:
            # Before the file is read: of one that is replaced meanwhile, nothing is found later on.
            key = self.features.key(medium.path, template.rule(medium.video))
            return key, template.tiles_of(medium.path, medium.video)
        except InputError as error:
            return None, str(error)
        except OSError as error:
            return None, described(error)


def _prepare(todo: Sequence[Medium], options: Options, template: EmoverseTemplate, features: Features) -> int:
    """Decode, let the tower look, keep; returns how many files could not be prepared, each named on stderr."""
    import torch
    from torch.utils.data import DataLoader

    from swift_plugins.features import tower_output

    features.tower  # noqa: B018  once, before there are processes
    jobs = min(len(todo), len(os.sched_getaffinity(0)) if options.jobs < 0 else options.jobs)
    loader = DataLoader(_Decoded(todo, template, features), batch_size=None, num_workers=jobs)
    model, failed = _model(options, features.dtype), 0

    def look(waiting: list[tuple[dict, list[torch.Tensor]]]) -> None:
        tiles = torch.cat([tile for _, pictures in waiting for tile in pictures])
        seen = torch.cat(
            [
                tower_output(model, template.normalised(part).to(model.device)).cpu()
                for part in tiles.split(options.batch)
            ]
        )
        for key, pictures in waiting:
            whole, seen = seen.tensor_split([sum(map(len, pictures))])
            features.save(key, [*whole.split([len(tiles) for tiles in pictures])])

    with torch.no_grad(), progress(total=len(todo), unit="file", desc="features") as bar:
        for batch in _batches(iter(loader), options.batch):
            whole = [(key, tiles) for key, tiles in batch if key is not None]
            for reason in (reason for key, reason in batch if key is None):
                bar.write(f"error: {reason}", file=sys.stderr)
            if whole:
                look(whole)
            failed += len(batch) - len(whole)
            bar.update(len(batch))
    return failed


def _batches(decoded: Iterator[tuple], tiles: int) -> Iterator[list[tuple]]:
    """What was decoded, in groups of at least so many tiles."""
    group, count = [], 0
    for key, pictures in decoded:
        group.append((key, pictures))
        count += 1 if key is None else sum(map(len, pictures))
        if count >= tiles:
            yield group
            group, count = [], 0
    if group:
        yield group


def _model(options: Options, dtype: torch.dtype):
    """The model without what is not needed, on the device."""
    import torch
    from transformers.utils import logging

    from swift_plugins.internvl2 import load_internvl2

    logging.disable_progress_bar()
    device = chosen_device(options.device)
    model = load_internvl2(options.model, dtype).eval()
    model.model.language_model = torch.nn.Identity()
    model.lm_head = torch.nn.Identity()
    return on_device(model, device)


def chosen_device(name: str) -> torch.device:
    """The device of --device: `auto` is the accelerator where there is one. `InputError` for one that there is not."""
    import torch

    if name == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found or torch.device("cpu")
    try:
        return torch.device(name)
    except RuntimeError:
        raise InputError(f"--device {name}: no such device") from None


def on_device(model: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """The model on the device; `InputError` where that cannot be used."""
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {device} cannot be used: {str(error).splitlines()[0]}") from None
