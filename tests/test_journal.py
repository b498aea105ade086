"""The journal that fer and eri resume from: cut-off lines, several writers, one writer, a full disk."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from swift_plugins.files import ROOT, InputError
from swift_plugins.journal import Journal

LINES = [{"id": "a", "text": "heißt ⌘"}, {"id": "b", "text": "x\ny\u2028z"}, {"fault": "none of the keys"}]


def plain(journal: Journal) -> list[dict]:
    return [record for _, _, record in journal.records()]


def test_a_journal_cut_anywhere_keeps_its_whole_lines_and_goes_on(tmp_path):
    path = tmp_path / "sub" / "j.jsonl"
    with Journal(path) as journal:
        for line in LINES:
            journal.append(line)
        assert plain(journal) == LINES
    content = path.read_bytes()
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        whole = content[:cut].count(b"\n")
        with Journal(path, resume=True) as journal:
            assert plain(journal) == LINES[:whole]
            journal.append({"id": "c"})
            assert plain(journal) == [*LINES[:whole], {"id": "c"}]


def test_a_file_has_one_writer_and_is_not_gone_on_with_unasked(tmp_path):
    with Journal(tmp_path / "j.jsonl") as journal:
        with pytest.raises(InputError, match="another run is writing there"):
            Journal(tmp_path / "j.jsonl")
        journal.append({"id": "a"})
    with pytest.raises(InputError, match="go on with --resume"):
        Journal(tmp_path / "j.jsonl")
    assert Journal(tmp_path / "j.jsonl", resume=True).by_key("id") == {"a": {"id": "a"}}


def test_several_processes_share_a_folder(tmp_path):
    code = (
        "import sys; from swift_plugins.journal import Journal\n"
        "journal = Journal(sys.argv[1], shared=True)\n"
        "for n in range(200): journal.append({'id': f'{sys.argv[2]}.{n}', 'text': 'x' * 5000})"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "done")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for process in [subprocess.Popen([*command, name], env=environment) for name in "pq"]:
        assert process.wait() == 0
    journal = Journal(tmp_path / "done", shared=True)
    (tmp_path / "done" / "killed.jsonl").write_bytes(b'{"id": "whole"}\n{"id": "cut o')
    assert set(journal.by_key("id")) == {"whole"} | {f"{name}.{n}" for name in "pq" for n in range(200)}
    assert len(list((tmp_path / "done").iterdir())) == 3, "a reader leaves no file"


def test_the_last_record_of_the_highest_rank_counts(tmp_path):
    with Journal(tmp_path / "j.jsonl") as journal:
        for line in ({"id": "a", "record": 1}, {"id": "a", "record": 2}, {"id": "a", "fault": 3}, {"other": 4}):
            journal.append(line)
        assert journal.by_key("id") == {"a": {"id": "a", "fault": 3}}
        assert journal.by_key("id", rank=lambda line: "record" in line) == {"a": {"id": "a", "record": 2}}


@pytest.mark.parametrize("line", [b"no json", b"[1]", b"\xff", b"[" * 100_000, b"1" * 5_000, b""])
def test_a_line_that_is_no_object_is_named(tmp_path, line):
    (tmp_path / "j.jsonl").write_bytes(b'{"id": "a"}\n' + line + b"\n")
    with pytest.raises(InputError, match=r"j\.jsonl:2: is not a line of a journal"):
        plain(Journal(tmp_path / "j.jsonl", resume=True))


def test_half_a_surrogate_pair_is_written_as_a_character(tmp_path):
    with Journal(tmp_path / "j.jsonl") as journal:
        journal.append({"id": "\ud800"})
        assert journal.by_key("id") == {"?": {"id": "?"}}


def test_a_full_disk_leaves_no_half_line(tmp_path):
    code = (
        "import resource, signal, sys; from swift_plugins.journal import Journal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "journal = Journal(sys.argv[1])\n"
        "for n in (10, 2000, 20):\n"
        "    try: journal.append({'text': 'x' * n})\n"
        "    except OSError: print('full')"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "j.jsonl")]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.stdout == "full\n", done.stderr
    assert [len(record["text"]) for record in plain(Journal(tmp_path / "j.jsonl", resume=True))] == [10, 20]
