"""Prepared clips on disk: never a wrong picture, whatever happened to the file or to the clip."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swift_plugins import media_cache
from swift_plugins.media_cache import GB, LastFiles, MediaCache, file_key

ROOT = Path(__file__).resolve().parents[1]
TENSORS = {"tiles": torch.arange(60, dtype=torch.uint8).reshape(5, 3, 4), "half": torch.ones(3, dtype=torch.bfloat16)}


def same(found, expected=TENSORS):
    assert found is not None and found.keys() == expected.keys()
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in expected.items()
    )


def entries(folder):
    return sorted(folder.glob("??/*.safetensors"))


def test_an_entry_is_read_as_it_was_written_by_any_process(tmp_path):
    MediaCache(tmp_path, GB).save({"clip": 1, "frames": 8}, TENSORS)
    same(MediaCache(tmp_path, GB).load({"frames": 8, "clip": 1}))
    assert MediaCache(tmp_path, GB).load({"clip": 1, "frames": 4}) is None


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_entry_is_none(tmp_path_factory, data):
    """One byte changed, or the file cut anywhere: it reads as absent, or (a byte of no meaning) as what was written."""
    folder = tmp_path_factory.mktemp("damaged")
    cache = MediaCache(folder, GB)
    cache.save({"clip": 1}, TENSORS)
    path = entries(folder)[0]
    content = path.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        path.write_bytes(content[:place])
    else:
        path.write_bytes(
            content[:place] + bytes([content[place] ^ data.draw(st.integers(1, 255))]) + content[place + 1 :]
        )
    found = cache.load({"clip": 1})
    if found is not None:
        same(found)
    cache.save({"clip": 1}, TENSORS)
    same(cache.load({"clip": 1}))
    shutil.rmtree(folder)


def test_an_entry_under_the_name_of_another_is_not_taken(tmp_path):
    cache = MediaCache(tmp_path, GB)
    cache.save({"clip": 1}, TENSORS)
    other = cache.path({"clip": 2})
    other.parent.mkdir(exist_ok=True)
    shutil.copy(entries(tmp_path)[0], other)
    assert cache.load({"clip": 2}) is None


def test_another_clip_of_the_same_name_has_another_key(tmp_path):
    """Even one of the same size and with the times of the first, as `cp -p` and `tar` leave them."""
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"one")
    first, times = file_key(clip), (clip.stat().st_atime_ns, clip.stat().st_mtime_ns)
    assert file_key(clip) == first
    time.sleep(0.02)
    (tmp_path / "new").write_bytes(b"two")
    os.utime(tmp_path / "new", ns=times)
    os.replace(tmp_path / "new", clip)
    assert file_key(clip) != first
    (tmp_path / "link.mp4").symlink_to(clip)
    assert file_key(tmp_path / "link.mp4") == file_key(clip)


def test_the_bound_holds_and_what_was_used_longest_ago_goes_first(tmp_path):
    earlier = MediaCache(tmp_path, GB)
    for number in range(6):
        earlier.save({"clip": number}, TENSORS)
    size = entries(tmp_path)[0].stat().st_size
    for number in range(6):  # in the order of their use, an hour ago
        os.utime(earlier.path({"clip": number}), (time.time() - 3600 + number,) * 2)
    now = MediaCache(tmp_path, 6 * size + 50)
    same(now.load({"clip": 0}))  # used by this run
    now.save({"clip": "new"}, TENSORS)
    assert now.load({"clip": 1}) is None, "the one used longest ago made way"
    for number in (0, 2, 3, 4, 5, "new"):
        same(now.load({"clip": number}))
    now.save({"clip": "more"}, TENSORS)
    assert len(entries(tmp_path)) == 6 and now.load({"clip": "more"}) is None, "all are in use: it is not kept"


def test_in_memory_the_last_files_stay():
    memory = LastFiles(most=2)
    for number in range(3):
        memory.save({"clip": number}, TENSORS)
    assert memory.load({"clip": 0}) is None and memory.load({"clip": 1}) is memory.load({"clip": 2}) is TENSORS


def test_never_more_than_half_of_what_is_free(tmp_path, monkeypatch):
    size = len(media_cache.save(TENSORS, {"key": "x" * 30, "sum": "0" * 8}))
    free = shutil.disk_usage(tmp_path)._replace(free=5 * size)
    monkeypatch.setattr(media_cache.shutil, "disk_usage", lambda folder: free)
    cache = MediaCache(tmp_path, GB)
    for number in range(5):
        cache.save({"clip": number}, TENSORS)
    assert len(entries(tmp_path)) == 2


def test_a_disk_that_refuses_is_said_once_and_costs_nothing_else(tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    cache = MediaCache(tmp_path / "file" / "cache", GB)
    with caplog.at_level("WARNING"):
        cache.save({"clip": 1}, TENSORS)
        cache.save({"clip": 2}, TENSORS)
    assert cache.load({"clip": 1}) is None
    assert [record.message for record in caplog.records if "media cache" in record.message] == [
        f"media cache: {tmp_path}/file/cache: Not a directory; clips are prepared anew each time"
    ]


def test_processes_that_write_and_read_the_same_entries_see_whole_ones(tmp_path):
    code = """
import sys, torch
from pathlib import Path
from swift_plugins.media_cache import GB, MediaCache
cache = MediaCache(Path(sys.argv[1]), GB)
for turn in range(40):
    for number in range(5):
        whole = {"tiles": torch.full((40, 50), number)}
        found = cache.load({"clip": number})
        if found is None or turn % 7 == 0:
            cache.save({"clip": number}, whole)
        assert found is None or torch.equal(found["tiles"], whole["tiles"])
"""
    runs = [subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=ROOT, stderr=-1) for _ in range(3)]
    assert [run.wait(120) for run in runs] == [0, 0, 0], runs[0].stderr.read()
    assert len(entries(tmp_path)) == 5 and not list(tmp_path.glob("??/.*"))


@pytest.mark.parametrize("size", ["0", "-1", "many", "nan"])
def test_a_size_that_is_none_is_refused(monkeypatch, tmp_path, size):
    monkeypatch.setenv("AMT_CACHE", str(tmp_path))
    monkeypatch.setenv("AMT_CACHE_GB", size)
    with pytest.raises(ValueError, match=f"AMT_CACHE_GB must be a number of gigabytes, not {size}"):
        media_cache.from_environment()
