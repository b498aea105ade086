"""What a frozen vision tower sees, prepared on disk: training and inference read it instead of looking again.

    python -m data_prep.features --model MODEL --data amt --out features     # fills the folder
    AMT_FEATURES=features bash shell/first_stage.sh                          # reads it (swift_plugins.template)

An entry holds what the projector takes of one clip or picture: (tiles, tokens, width) after pixel shuffle, in the
model's own precision. Its key says which file it was, how that became tiles, and which tower looked at them: a digest
of the weights themselves, whatever a checkpoint calls them. The original folder and a merged export of it share
features; other weights, another precision, other frames or another file of the same name find none, and are looked at.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import re
from functools import cached_property
from pathlib import Path

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from safetensors import SafetensorError, safe_open
from transformers import InternVLConfig, InternVLForConditionalGeneration
from transformers.integrations import is_deepspeed_zero3_enabled

from swift_plugins.files import InputError, read_json, write_json
from swift_plugins.internvl2 import tile_side, weight_files
from swift_plugins.media_cache import GB, MediaCache, file_key

TOWER = re.compile(r"vision_model\.|(model\.)?vision_tower\.")  # original names; those of merged exports
# What of a config decides the output and is not seen from the shapes of the weights.
VISION = ("num_attention_heads", "hidden_act", "norm_type", "layer_norm_eps", "use_qk_norm", "use_mean_pooling")
AROUND = ("vision_feature_layer", "vision_feature_select_strategy", "downsample_ratio")
TOGETHER = 32  # tiles at a time
NOTE = "features.json"  # beside the entries: what they were made with
log = logging.getLogger("swift")


def tower_digest(model: Path, config: InternVLConfig, dtype: torch.dtype) -> str:
    """A digest of the vision tower in a model folder as it computes in `dtype`, whatever the names of its weights.

    Raises `InputError` for a folder without one.
    """
    settings = {name: getattr(config.vision_config, name) for name in VISION}
    settings |= {name: getattr(config, name) for name in AROUND}
    text = json.dumps([_weights_digest(model, dtype), settings], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@functools.cache
def _weights_digest(model: Path, dtype: torch.dtype) -> str:
    digests = []
    for path in weight_files(model):
        try:
            with safe_open(path, "pt") as file:
                for name in filter(TOWER.match, file.keys()):
                    tensor = file.get_tensor(name)
                    parts = tensor.chunk(3) if ".qkv." in name else [tensor]  # exports hold q, k and v apart
                    digests += [_digest(part, dtype) for part in parts]
        except (SafetensorError, OSError) as error:
            raise InputError(f"is not a whole safetensors file ({error})", path) from None
    if not digests:
        raise InputError("holds no vision tower", model)
    return hashlib.blake2b("".join(sorted(digests)).encode(), digest_size=16).hexdigest()


def _digest(tensor: torch.Tensor, dtype: torch.dtype) -> str:
    body = tensor.to(dtype).contiguous().view(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(body, digest_size=16, key=str([*tensor.shape]).encode()).hexdigest()


class Features:
    """A folder of prepared features, as the model of a folder would make them in `dtype`."""

    def __init__(self, folder: Path, model: Path, config: InternVLConfig, dtype: torch.dtype):
        self.folder, self.cache = folder, MediaCache(folder, None)
        self.model, self.config, self.dtype = Path(model), config, dtype
        self.asked = False  # for any file so far

    @cached_property
    def tower(self) -> dict[str, str]:
        """The part of every key that says who looked."""
        digest = tower_digest(self.model, self.config, self.dtype)
        return {"tower": digest, "dtype": str(self.dtype).removeprefix("torch.")}

    def key(self, path: str | os.PathLike, rule: dict) -> dict:
        """The key of a file that a rule turns into tiles. Raises `OSError`."""
        return file_key(path) | rule | self.tower

    def find(self, path: str | os.PathLike, rule: dict) -> list[torch.Tensor] | None:
        """(tiles, tokens, width) of each picture of a file; None where nothing fits. The first miss is told why."""
        try:
            entry = self.cache.load(self.key(path, rule))
        except OSError:
            return None
        if not self.asked and entry is None:
            worker = torch.utils.data.get_worker_info()
            if worker is None or worker.id == 0:
                log.warning(
                    f"AMT_FEATURES={self.folder} {self._why_not(path, rule)}; pictures are looked at as without"
                )
        self.asked = True
        return None if entry is None else [*entry["features"].split(entry["counts"].tolist())]

    def save(self, key: dict, pictures: list[torch.Tensor]) -> None:
        """Keep what the tower sees in each picture of a file; `InputError` when the disk refuses."""
        counts = torch.tensor([len(tiles) for tiles in pictures])
        self.cache.save(key, {"features": torch.cat(pictures), "counts": counts})
        if not self.cache.open:
            raise InputError(
                "cannot be written to: full disk? The same command goes on where this one ends", self.folder
            )

    def note(self) -> dict:
        """What the folder was made with; {} where nothing was."""
        try:
            made = read_json(self.folder / NOTE)
        except InputError:
            return {}
        return made if isinstance(made, dict) else {}

    def begin(self, rules: dict[str, dict]) -> None:
        """Note what the folder is for. Raises `InputError` where it is for something else already."""
        wanted = {"rules": rules, **self.tower}
        made = self.note()
        if made and {name: made.get(name) for name in wanted} != wanted:
            what = next(name for name in ("tower", "dtype", "rules") if made.get(name) != wanted[name])
            reason = f"holds features of another kind ({what} of {made.get('model')}): give another --out"
            raise InputError(reason, self.folder)
        if not made:
            write_json(self.folder / NOTE, {"model": str(self.model.resolve()), **wanted})

    def _why_not(self, path: str | os.PathLike, rule: dict) -> str:
        made = self.note()
        if not made:
            return "holds no features (python -m data_prep.features makes them)"
        if made.get("tower") != self.tower["tower"] and made.get("dtype") == self.tower["dtype"]:
            return f"was made for other weights of the vision tower, those of {made.get('model')}"
        if made.get("dtype") != self.tower["dtype"]:
            return f"was made in {made.get('dtype')}, and this model computes in {self.tower['dtype']}"
        if rule not in dict(made.get("rules") or {}).values():
            return f"was made from other frames or tiles than {json.dumps(rule)}"
        return f"holds nothing for {os.fspath(path)}, which was not prepared or has changed since"


def from_environment(model: str, config: InternVLConfig, dtype: torch.dtype) -> Features | None:
    """The folder that AMT_FEATURES names, for the model of a folder; None where it names none."""
    folder = os.environ.get("AMT_FEATURES")
    if not folder:
        return None
    features = Features(Path(folder), Path(model), config, dtype)
    features.tower  # noqa: B018  read here, once: loader workers are copies of this process
    return features


def media_file(media: object) -> str | None:
    """The path of a row's picture or clip where it is a file: what a server is sent has no name to be found under."""
    if isinstance(media, dict) and not media.get("bytes"):  # how `datasets` stores media
        media = media.get("path")
    return os.fspath(media) if isinstance(media, str | os.PathLike) and os.path.isfile(media) else None


def tower_output(model: InternVLForConditionalGeneration, pixels: torch.Tensor) -> torch.Tensor:
    """(tiles, tokens, width) of (tiles, 3, side, side): what `get_image_features` hands to its projector."""
    config, core = model.config, model.model
    layer = config.vision_feature_layer
    seen = core.vision_tower(pixel_values=pixels.to(model.dtype), output_hidden_states=layer != -1, return_dict=True)
    states = seen.last_hidden_state if layer == -1 else seen.hidden_states[layer]
    if config.vision_feature_select_strategy == "default":
        states = states[:, 1:]
    grid = int(states.shape[1] ** 0.5)
    states = core.pixel_shuffle(states.unflatten(1, (grid, grid)), scale_factor=config.downsample_ratio)
    return states.flatten(1, 2)


class Seen:
    """What the tower saw of the last tiles, `most` bytes at most: a clip that several rows show is looked at once.

    A tile is known by its pixels, so what is found is what the tower would see.
    """

    def __init__(self, most: int = GB):
        self.most, self.used, self.kept = most, 0, {}

    @torch.inference_mode()
    def look(self, model: InternVLForConditionalGeneration, tiles: torch.Tensor) -> torch.Tensor:
        """`tower_output` of tiles, (tiles, 3, side, side) in, (tiles, tokens, width) on the CPU out."""
        names = [_digest(tile, tile.dtype) for tile in tiles]
        new = {name: place for place, name in enumerate(names) if name not in self.kept}
        found = {name: self.kept[name] for name in names if name not in new}
        for part in torch.tensor([*new.values()], dtype=torch.long).split(TOGETHER) if new else ():
            seen = tower_output(model, tiles[part].to(model.device)).cpu()
            found |= {names[place]: one.clone() for place, one in zip(part, seen, strict=True)}
        for name in new:
            self.kept[name], self.used = found[name], self.used + found[name].nbytes
        while self.used > self.most:
            self.used -= self.kept.pop(next(iter(self.kept))).nbytes
        return torch.stack([found[name] for name in names])


def projected(
    model: InternVLForConditionalGeneration, pixels: torch.Tensor | None, ready: torch.Tensor, prepared: torch.Tensor
) -> torch.Tensor:
    """(tiles, tokens, width) as the language model sees them.

    pixels: the tiles that are to be looked at, or None. ready: the features of the others. prepared: (tiles,), which
    are which.
    """
    whole = ready.new_empty((len(prepared), *ready.shape[1:]))
    whole[prepared] = ready
    if pixels is not None:
        whole[~prepared] = tower_output(model, pixels.to(ready.device)).to(whole.dtype)
    elif is_deepspeed_zero3_enabled():
        # The weights are gathered by all processes at once: each runs the tower in every step, or the others wait.
        side = tile_side(model.config)
        whole = whole + tower_output(model, whole.new_zeros((1, 3, side, side))).mean() * 0.0
    return model.model.multi_modal_projector(whole)


def refuse_trained(model: InternVLForConditionalGeneration) -> None:
    """`InputError` where the tower is being trained, or an adapter has changed it: what was prepared is not its own."""
    tower = model.model.vision_tower
    trained = torch.is_grad_enabled() and any(weight.requires_grad for weight in tower.parameters())
    if trained or any(isinstance(part, BaseTunerLayer | ModulesToSaveWrapper) for part in tower.modules()):
        raise InputError("AMT_FEATURES is for a frozen vision tower, and this one is trained: leave one of them out")
