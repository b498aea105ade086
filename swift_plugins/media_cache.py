"""Prepared media on disk: what a clip is turned into is made once, and read by every task, epoch, stage and process.

    cache = MediaCache(Path("output/cache"), limit=50 * GB)
    key = file_key("clip.mp4") | {"frames": 8, "side": 448}
    tensors = cache.load(key) or make_and(cache.save, key)

From the environment, for training and inference (`swift_plugins.template`):

    AMT_CACHE      folder of the cache; unset or empty: none
    AMT_CACHE_GB   its bound in gigabytes, default 50, and never more than half of what the disk has free

An entry is a safetensors file with its whole key and a checksum in its header: another file of the same name, other
settings, half an entry or a broken one are never taken for it; it is made anew. What an earlier run used longest ago
goes first when the bound is reached; entries of this run stay, and what does not fit beside them is not kept. A disk
that is full costs speed and one warning.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
import zlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from swift_plugins.files import atomic_open, described

GB = 10**9
COUNT_EVERY = 64  # entries written between two looks at how large the cache has become
log = logging.getLogger("swift")


def file_key(path: str | os.PathLike) -> dict:
    """What tells a file from every other and from its own earlier content: its whole path, size and times.

    The time of change cannot be set by copying or extracting, which keep that of modification. Raises `OSError`.
    """
    path = os.path.realpath(path)
    state = os.stat(path)
    return {"file": path, "bytes": state.st_size, "modified": state.st_mtime_ns, "changed": state.st_ctime_ns}


class MediaCache:
    """Entries of tensors in a folder of `limit` bytes at most; several processes may share it.

    Without a limit nothing is counted and nothing goes: whoever fills the folder has looked at the disk.
    """

    def __init__(self, folder: Path, limit: int | None):
        self.folder, self.limit = folder, limit
        self.start = time.time() - 1  # file systems round down
        self.used: int | None = None  # bytes, as last counted
        self.written = 0  # entries since
        self.open = True  # until the disk refuses

    def path(self, key: dict) -> Path:
        """Where the entry of a key lies."""
        name = hashlib.blake2b(_text(key).encode(), digest_size=16).hexdigest()
        return self.folder / name[:2] / f"{name[2:]}.safetensors"

    def load(self, key: dict) -> dict[str, torch.Tensor] | None:
        """The tensors kept under a key; None where there are none, or not whole."""
        path = self.path(key)
        try:
            with safe_open(path, "pt") as entry:  # maps the file: what is not looked at is not read
                about = entry.metadata() or {}
                if about.get("key") != _text(key):
                    return None
                tensors = {name: entry.get_tensor(name) for name in entry.keys()}  # noqa: SIM118 (it is no mapping)
            if about.get("sum") != _checksum(tensors):
                return None
            with contextlib.suppress(OSError):  # somebody else's file, or a disk that is only read
                os.utime(path)
        except (OSError, SafetensorError):
            return None
        return tensors

    def save(self, key: dict, tensors: dict[str, torch.Tensor]) -> None:
        """Keep tensors under a key, where there is room for them."""
        if not self.open:
            return
        body = save(tensors, {"key": _text(key), "sum": _checksum(tensors)})
        try:
            if self.limit is not None and not self._room(len(body)):
                return
            with atomic_open(self.path(key), "wb") as file:
                file.write(body)
        except OSError as error:
            self.open = False
            log.warning(f"media cache: {described(error)}; clips are prepared anew each time")
            return
        if self.limit is not None:
            self.used += len(body)
            self.written += 1

    def _room(self, size: int) -> bool:
        """Whether so many bytes more stay within the bound, after what earlier runs left has made way."""
        if self.used is None or self.written >= COUNT_EVERY:
            self._count()
        if self.used + size > self.limit:
            self._evict(size)
        return self.used + size <= self.limit

    def _count(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        first = self.used is None
        self.used, self.written = sum(state.st_size for _, state in self._entries()), 0
        if first:
            self.limit = min(self.limit, self.used + shutil.disk_usage(self.folder).free // 2)

    def _evict(self, size: int) -> None:
        old = sorted((state.st_mtime, path, state.st_size) for path, state in self._entries())
        for used_at, path, length in old:
            if self.used + size <= self.limit or used_at >= self.start:
                break
            path.unlink(missing_ok=True)
            self.used -= length

    def _entries(self):
        for path in self.folder.glob("??/*.safetensors"):
            try:
                yield path, path.stat()
            except FileNotFoundError:  # another process made room
                continue


class LastFiles:
    """As `MediaCache`, in memory, of the files that were prepared last."""

    def __init__(self, most: int = 2):
        self.most, self.entries = most, {}

    def load(self, key: dict) -> dict[str, torch.Tensor] | None:
        """See `MediaCache`."""
        return self.entries.get(_text(key))

    def save(self, key: dict, tensors: dict[str, torch.Tensor]) -> None:
        """See `MediaCache`."""
        self.entries[_text(key)] = tensors
        if len(self.entries) > self.most:
            del self.entries[next(iter(self.entries))]


def from_environment() -> MediaCache | None:
    """The cache that AMT_CACHE and AMT_CACHE_GB name; `ValueError` for a size that is none."""
    folder = os.environ.get("AMT_CACHE")
    if not folder:
        return None
    size = os.environ.get("AMT_CACHE_GB") or "50"
    try:
        limit = float(size)
    except ValueError:
        limit = -1.0
    if not 0 < limit < 1e9:
        raise ValueError(f"AMT_CACHE_GB must be a number of gigabytes, not {size}")
    return MediaCache(Path(folder), int(limit * GB))


def _text(key: dict) -> str:
    return json.dumps(key, sort_keys=True)


def _checksum(tensors: dict[str, torch.Tensor]) -> str:
    total = 0
    for name, tensor in sorted(tensors.items()):
        total = zlib.crc32(f"{name} {tensor.dtype} {[*tensor.shape]}".encode(), total)
        total = zlib.crc32(tensor.contiguous().view(-1).view(torch.uint8).numpy(), total)
    return f"{total:08x}"
