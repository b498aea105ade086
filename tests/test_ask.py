"""`ask.py`: clips of one's own, answered by the demo's model; what cannot be asked about is said in a sentence."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from app.asking import checkpoint_and_channels
from app.clips import LONGEST_TEXT, Clip, find_clips, look, transcript, transcript_file
from app.engine import DEMO, newest_checkpoint
from ask import Options
from swift_plugins.files import InputError
from swift_plugins.likelihood import shares

ROOT = Path(__file__).resolve().parents[1]


def video(path: Path, frames: int = 12, rate: int = 8, side: int = 64) -> Path:
    """A small clip of a grey that brightens."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        for number in range(frames):
            picture = np.full((side, side, 3), 20 + 200 * number // frames, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def ask(*arguments, cwd=ROOT, **environment) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "ask.py"), *map(str, arguments)]
    settings = os.environ | {"OMP_NUM_THREADS": "1", "OUTPUT_ROOT": "/nonexistent", **environment}
    return subprocess.run(command, cwd=cwd, env=settings, capture_output=True, text=True)


@pytest.mark.swift
def test_clips_and_pictures_of_ones_own(world, tmp_path):
    """A folder with a difficult name, transcripts beside the clips; text, JSON and a page. One file is broken."""
    folder = tmp_path / "meine Klippen é"
    folder.mkdir()
    clip = next(iter(sorted((world / "mosei" / "Raw").glob("*/*.mp4"))))
    (folder / "a clip.mp4").write_bytes(clip.read_bytes())
    (folder / "a clip.txt").write_text("Honestly, the piano made me smile all day! <image>\n")
    Image.new("RGB", (90, 60), "white").save(folder / "b.png")
    (folder / "c.mp4").write_bytes(b"")
    table = world / "mosei" / "openface" / clip.relative_to(world / "mosei").with_suffix(".csv")
    (tmp_path / "csv").mkdir()
    for stem in ("a clip", "b", "c"):
        (tmp_path / "csv" / f"{stem}.csv").write_bytes(table.read_bytes())
    done = ask(folder, "--csv", tmp_path / "csv", "--json", tmp_path / "a.json", "--html", tmp_path / "page")
    assert done.returncode == 2, "one clip could not be asked about"
    assert "c.mp4: is empty; expected a video or a picture" in done.stdout
    assert "Traceback" not in done.stderr and "Loading weights" not in done.stderr

    found = json.loads((tmp_path / "a.json").read_text())
    first, second, third = found["clips"]
    assert first["text"] == "Honestly, the piano made me smile all day! < image >"
    assert first["peak"]["frame"] >= 1 and first["peak"]["aus"]["AU12"] >= 0
    assert set(first["tasks"]) == set(second["tasks"]) == {"msa", "mer", "fer", "eri"}
    assert second["peak"] is None and second["frames"] == 1
    assert "tasks" not in third
    for record in (first, second):
        for key, labels in (("msa", 2), ("mer", 7)):
            answer = record["tasks"][key]
            assert len(answer["probabilities"]) == labels
            assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-3)
            assert answer["answer"].rstrip(".").lower() == answer["label"]
            assert answer["probabilities"][answer["label"]] == max(answer["probabilities"].values())
            assert f"{answer['label']:<12} " in done.stdout
    page = (tmp_path / "page" / "index.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 1 + 8 + 1, "the peak, eight frames, the picture"
    assert "<script" not in page and "&lt; image &gt;" in page


@pytest.mark.swift
def test_likelihoods_are_those_of_generation(world):
    """The log p of an answer is the sum of what generation says of its tokens, the end of the turn included."""
    code = """
from pathlib import Path
from swift.infer_engine import InferRequest, RequestConfig
from app.engine import Question, open_model
import sys, math
model = open_model()
question = Question("Say it. <emotion> Which emotion does this person show?", videos=(Path(sys.argv[1]),))
request = InferRequest(messages=question.messages(), videos=[sys.argv[1]])
done = model._engine.infer([request], RequestConfig(max_tokens=30, temperature=0, logprobs=True), use_tqdm=False)[0]
text = done.choices[0].message.content
told = sum(token["logprob"] for token in done.choices[0].logprobs["content"])
assert text == model.answer(question, 30)
ours = model.likelihoods(question, [text, "Nothing of the kind."])
print(told, *ours)
"""
    clip = next(iter(sorted((world / "mosei" / "Raw").glob("*/*.mp4"))))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code, clip], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    told, ours, other = map(float, done.stdout.split()[-3:])
    assert ours == pytest.approx(told, abs=1e-3) and other < ours


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("empty.mp4", b"", "is empty"),
        ("text.mp4", b"no video at all, but long enough to be looked at" * 9, "cannot be decoded"),
        ("picture.png", b"\x89PNG\r\n\x1a\n broken", "is no picture that can be read"),
        ("table.csv", b"frame,AU01_r\n1,0\n", "expected a video or a picture"),
    ],
)
def test_a_file_that_is_no_clip_is_named(tmp_path, name, content, message):
    """Before a model is loaded."""
    (tmp_path / name).write_bytes(content)
    done = ask(tmp_path / name)
    assert done.returncode == 2 and f"{name}: " in done.stdout and message in done.stdout
    assert "loading" not in done.stderr and "Traceback" not in done.stderr


def test_a_picture_with_too_many_pixels_is_named(tmp_path):
    Image.new("1", (9000, 9000)).save(tmp_path / "bomb.png")
    with pytest.raises(InputError, match=r"bomb\.png: has too many pixels"):
        look(Clip(tmp_path / "bomb.png", ""), tmp_path)


def test_a_clip_that_lasts_too_long(tmp_path):
    path = video(tmp_path / "long.mp4", frames=8, rate=1)
    with av.open(str(path)) as source, av.open(str(tmp_path / "slow.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
            packet.pts = packet.dts = number * 900 * int(1 / packet.time_base)
            packet.stream = stream
            target.mux(packet)
    with pytest.raises(InputError, match=r"lasts [0-9,]+ s; cut the utterance out of it \(at most 120 s\)"):
        look(Clip(tmp_path / "slow.mkv", ""), tmp_path)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("none.mp4",), "none.mp4: no such file or folder"),
        (("{tmp}",), "holds neither a video nor a picture"),
        (("ask.py", "--task", "ecpe"), "--task ecpe is asked of a dialogue, not of a clip"),
        (("ask.py", "--task", "joy"), "--task joy is no task"),
        (("ask.py", "--task", "mlmer"), "--task mlmer is of MMEVerse's rows alone; there are msa, mer, fer, eri"),
        (("ask.py", "--dataset", "none", "--task", "mer"), "--dataset none: no such dataset; there are meld"),
        (("ask.py", "--text", "a", "--text-file", "b"), "not both"),
        (("ask.py", "--text", "x" * (LONGEST_TEXT + 1)), "the transcript has 5,001 characters"),
        (("ask.py", "--text-file", "{tmp}/none.txt"), "none.txt: cannot be read"),
        (("ask.py", "--checkpoint", "{tmp}/none"), "none: no such folder"),
        (("ask.py", "--html", "ask.py"), "/ask.py: is a file, not a folder"),
        (("ask.py", "--html", "ask.py/page/new"), "/ask.py: is a file, not a folder"),
        (("ask.py", "--json", "{tmp}"), ": is a folder, not a file"),
    ],
)
def test_refused_in_one_line(tmp_path, arguments, message):
    done = ask(*(part.format(tmp=tmp_path) for part in arguments))
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1


def test_transcripts_are_cleaned_as_the_readers_clean_them():
    assert transcript("Look <video> there\x00", "here") == "Look < video > there"


def test_clips_are_found_once_and_in_order(tmp_path):
    for name in ("b.mp4", "a.PNG", "c.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "d.mp4").symlink_to(tmp_path / "b.mp4")
    assert [path.name for path in find_clips([tmp_path, tmp_path / "b.mp4"])] == ["a.PNG", "b.mp4"]


def test_the_checkpoint_that_is_asked_is_the_last_one_trained(tmp_path):
    for number, name in enumerate(("old/stage2/checkpoint-9", "new/stage1/checkpoint-8", "new/stage1/checkpoint-10")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "trainer_state.json").write_text("{\n}\n")
        os.utime(tmp_path / name / "trainer_state.json", (number, number))
    (tmp_path / "new" / "stage1" / "checkpoint-11").mkdir()  # cut off by a kill
    (tmp_path / "new" / "stage1" / "checkpoint-12").mkdir()
    (tmp_path / "new" / "stage1" / "checkpoint-12" / "trainer_state.json").write_text('{\n  "a": {}')  # by a full disk
    assert newest_checkpoint(tmp_path) == tmp_path / "new" / "stage1" / "checkpoint-10"
    assert newest_checkpoint(tmp_path / "none") is None and (DEMO / "config.json").is_file()


@pytest.mark.swift
def test_an_adapter_of_own_data_is_asked_for_its_task_in_its_words(tmp_path):
    """A whole model stands in for it: what it was trained on is written in the same place."""
    lines = (
        "source: labels.csv",
        "columns: {clip: clip, emotion: emotion}",
        "labels: {mer: [开心, Sad, 非常非常非常失望]}",
    )
    (tmp_path / "mine.yaml").write_text("\n".join(lines), encoding="utf-8")
    shutil.copytree(DEMO, tmp_path / "trained")
    (tmp_path / "trained" / "args.json").write_text('{"dataset": ["amt:mine.mer#20"]}')
    Image.new("RGB", (90, 60), "white").save(tmp_path / "a.png")
    done = ask(tmp_path / "a.png", "--checkpoint", tmp_path / "trained", AMT_EXTENSIONS=tmp_path / "mine.yaml")
    assert done.returncode == 0, done.stderr
    first = f"in the words of mine: {tmp_path}/trained was trained on amt:mine.mer (--dataset takes others)"
    assert done.stderr.splitlines()[0] == first
    assert re.findall(r"^  (\w+)  .*\((\w+\.\w+), ", done.stdout, re.M) == [("mer", "mine.mer")]
    bars = [line for line in done.stdout.splitlines() if " % " in line]
    places = [len(line.partition(" %")[0].encode("gb18030")) for line in bars]  # two bytes: as wide as two letters
    assert len(bars) == 3 and len(set(places)) == 1, done.stdout


@pytest.mark.parametrize(
    "trained, options, asked, told",
    [
        (["amt:meld"], {}, {"msa": "meld.msa", "mer": "meld.mer", "fer": "meld.fer", "eri": "meld.eri"}, "of meld: "),
        (["amt:meld.mer#20", "amt:mosei.fer"], {}, {"mer": "meld.mer", "fer": "mosei.fer"}, "of meld, mosei: "),
        ("amt:meld.mer", {"task": ["msa"]}, {"msa": "mosei.msa"}, ""),
        (["amt:mosei.mer"], {"task": ["mer"], "dataset": "meld"}, {"mer": "meld.mer"}, ""),
        (["amt:stage1#600"], {"task": ["mer", "eri"]}, {"mer": "mosei.mer", "eri": "mosei.eri"}, "of mosei: "),
        (["amt:theirs"], {"task": ["mer"]}, {"mer": "meld.mer"}, "amt:theirs, which is no stage or dataset known here"),
        (["rows.jsonl"], {"task": ["mer"]}, {"mer": "meld.mer"}, ""),
    ],
)
def test_what_an_adapter_was_trained_on_is_what_it_is_asked(tmp_path, capsys, trained, options, asked, told):
    (tmp_path / "args.json").write_text(json.dumps({"dataset": trained}))
    chosen = Options((), checkpoint=tmp_path, **options)
    assert checkpoint_and_channels(chosen, chosen.task) == (tmp_path, asked)
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == bool(told)


def test_shares():
    assert shares([-1000.0, -1000.0 + np.log(3)]) == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize(
    "content, message",
    [
        (b"word " * 30_000, "has 150,000 bytes; a clip's transcript has 5,000 characters"),
        ("很好".encode() * 20_000, "has 120,000 bytes; a clip's transcript has 5,000 characters"),
        (b"word " * 1_200, "the transcript has 5,999 characters; a clip's has at most 5,000"),
        (b"caf\xe9", "is not UTF-8 text"),
    ],
)
def test_a_transcript_that_cannot_be_one(tmp_path, content, message):
    path = tmp_path / "clip.txt"
    path.write_bytes(content)
    with pytest.raises(InputError) as refused:
        transcript_file(path)
    assert str(refused.value) == f"{path}: {message}"
