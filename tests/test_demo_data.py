"""The synthetic datasets: same seed, same bytes; readable by our own readers; the truth is what the clips show."""

import csv
import hashlib
import random
from dataclasses import replace

import av
import numpy as np
import pytest

from data_prep.demo.faces import INTENSITIES, draw_frame, random_clip
from data_prep.demo.layouts import SIZES, Dialogues, facs, generate, write_clip, write_ecf, write_meld
from data_prep.demo.voices import voice
from data_prep.demo.words import EMOTIONS, NOUNS, conversation
from data_prep.doctor.checks import examine
from data_prep.readers import ecf, meld, mosei
from swift_plugins.files import InputError, read_rows
from swift_plugins.frames import sample_frames
from swift_plugins.sound import RATE, has_sound, read_sound


@pytest.fixture(scope="module")
def truth(world):
    return [record for _, record in read_rows(world / "truth.jsonl")]


def hashes(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(world, tmp_path):
    generate(tmp_path / "again", size="tiny")  # in this process, `world` by the command
    assert hashes(tmp_path / "again") == hashes(world)
    generate(tmp_path / "other", seed=1, size="tiny")
    assert hashes(tmp_path / "other")["truth.jsonl"] != hashes(world)["truth.jsonl"]


def test_a_folder_in_use_is_refused_and_left_alone(world):
    before = hashes(world)
    with pytest.raises(InputError, match="exists already"):
        generate(world, size="tiny")
    assert hashes(world) == before


@pytest.mark.parametrize("dataset, reader", [("meld", meld), ("mosei", mosei), ("ecf", ecf)])
def test_the_readers_take_it_without_a_fault(world, truth, dataset, reader):
    by_id = {record["id"]: record for record in truth if record["video"].startswith(f"{dataset}/")}
    faults, seen = [], set()
    for split in ("train", "dev", "test"):
        for sample in reader.read(world / dataset, split, faults):
            assert by_id[sample.id]["video"] == f"{dataset}/{sample.video}"
            assert sample.text
            seen.add(sample.id)
    assert seen == set(by_id)
    allowed = {"no_split", "emotion_all_zero"}  # ECF has no dev split; all zero is how MOSEI says neutral
    assert {fault.kind for fault in faults} <= allowed


@pytest.mark.parametrize("seed", range(3))
def test_the_doctor_finds_nothing_that_breaks_results(tmp_path, seed):
    """Made dialogues repeat each other sooner or later: not here, in no two splits. (No clip is drawn for this.)"""
    aus, dialogues = facs()[0], Dialogues()
    write_meld(tmp_path, seed, SIZES["small"]["meld"], aus, dialogues)
    write_ecf(tmp_path, seed, SIZES["small"]["ecf"], aus, dialogues)
    result = examine({"meld": tmp_path / "meld", "ecf": tmp_path / "ecf"})
    assert not [finding for finding in result.findings if finding.kind == "leak"]


def test_no_transcript_names_a_label(world):
    labels = {"neutral", "joy", "happy", "sadness", "sad", "anger", "angry", "surprise", "disgust", "fear"}
    labels |= {"positive", "negative"}
    for dataset, reader in (("meld", meld), ("mosei", mosei)):
        for sample in reader.read(world / dataset, "train", []):
            assert not labels & set(sample.text.lower().replace(".", " ").replace(",", " ").split())


def test_every_clip_decodes_to_the_frames_it_claims(world, truth):
    for record in truth[::7]:
        with av.open(str(world / record["video"])) as container:
            stream = container.streams.video[0]
            assert (stream.width, stream.height, stream.average_rate) == (112, 112, record["fps"])
            assert sum(1 for _ in container.decode(stream)) == record["frames"]


def test_the_au_tables_have_openface_columns_and_peak_at_the_true_apex(world, truth):
    for record in truth:
        dataset, _, clip = record["video"].partition("/")
        with (world / dataset / "openface" / clip).with_suffix(".csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows[0]) == 5 + 2 * 68 + 17 + 18
        for face in record["faces"]:
            mine = [row for row in rows if row["face_id"] == str(face["face_id"]) and row["success"] == "1"]
            assert len(mine) == record["frames"]
            sums = [sum(float(row[f"AU{au:02d}_r"]) for au in INTENSITIES if au != 45) for row in mine]
            assert sums[face["apex"]] == max(sums)  # a face at rest is as high before
            for au, value in face["aus"].items():
                shown = mine[face["apex"]]
                assert float(shown[f"{au}_r" if au != "AU28" else "AU28_c"]) == (value if au != "AU28" else 1)


def test_an_au_shows_in_the_picture():
    """Every AU of OpenFace changes the drawn face, the more the stronger it is."""
    for au in (*INTENSITIES, 28):
        pictures = []
        for value in (0.0, 2.0, 4.5):
            rng = random.Random(3)
            clip = random_clip(rng, "mosei", "x.mp4", "x", "neutral", 1, {"neutral": []})
            still = dict.fromkeys((*INTENSITIES, 28), 0.0)
            face = replace(clip.faces[0], rest=still, peak=still | {au: value}, apex=8, blink=99)
            if au == 45:
                face = replace(face, blink=8 if value else 99)
            pictures.append(draw_frame(replace(clip, faces=(face,)), 8))
        weak, strong = (
            sum(a != b for a, b in zip(pictures[0].tobytes(), picture.tobytes(), strict=True))
            for picture in pictures[1:]
        )
        assert 0 < weak <= strong * 1.5, au


def test_a_cause_is_the_line_that_tells_of_the_thing():
    rng = random.Random(0)
    pairs = own = later = none = 0
    for _ in range(300):
        lines = conversation(rng, recent=0.8)
        for index, line in enumerate(lines, 1):
            assert line.causes == sorted(set(line.causes))
            assert (line.emotion != "neutral") or not line.causes
            none += line.emotion != "neutral" and not line.causes
            pairs += len(line.causes)
            own += index in line.causes
            later += sum(cause > index for cause in line.causes)
            for cause in line.causes:
                words = set(line.text.lower().rstrip(".!").replace(",", "").split())
                told = set(lines[cause - 1].text.lower().rstrip(".!").replace(",", "").split())
                assert words & told & set(NOUNS)
    assert 0.4 < own / pairs < 0.6
    assert 0.01 < later / pairs < 0.08
    assert none


@pytest.fixture(scope="module")
def loud(project, tmp_path_factory):
    """The same world with voices."""
    out = tmp_path_factory.mktemp("world") / "loud"
    done = project("-m", "data_prep.demo", "--out", out, "--size", "tiny", "--sound")
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_voices_are_off_unless_asked_for_and_change_nothing_else(world, loud):
    """Annotations, Action Units and pictures stay; every clip is heard from its start to its end."""
    clips = {path.relative_to(world).as_posix() for path in world.rglob("*.mp4")}
    silent, heard = hashes(world), hashes(loud)
    assert {name for name in silent if silent[name] != heard[name]} == clips and silent.keys() == heard.keys()
    for number, clip in enumerate(sorted(clips)):
        assert not has_sound(world / clip) and has_sound(loud / clip)
        if number % 25 == 0:
            pictures = ([*map(np.asarray, sample_frames(folder / clip, 8))] for folder in (world, loud))
            assert all((a == b).all() for a, b in zip(*pictures, strict=True))
            with av.open(str(world / clip)) as container:
                seconds = container.duration / av.time_base
            assert seconds <= len(read_sound(loud / clip)) / RATE < seconds + 0.1  # AAC counts in 64 ms


@pytest.mark.slow
def test_the_same_clip_has_the_same_voice_byte_for_byte(loud, tmp_path):
    clips = write_meld(tmp_path, 0, SIZES["tiny"]["meld"], facs()[0], Dialogues())
    for clip in clips[:3]:
        write_clip(tmp_path, True, clip)
        assert (tmp_path / "meld" / clip.path).read_bytes() == (loud / "meld" / clip.path).read_bytes()


def test_a_voice_tells_the_emotion():
    """From loudness, pitch and how both change: nine in ten new voices are the nearest to those of their emotion."""

    def heard(clip, emotion):
        sound = voice(clip, emotion, 2.0) / 32768
        frames = np.lib.stride_tricks.sliding_window_view(sound, 1024)[::256] * np.hanning(1024)
        power = np.abs(np.fft.rfft(frames)) ** 2 + 1e-9
        level = np.log(power.sum(1))
        pitch = np.log(power[:, 4:].argmax(1) + 4.0)[level > level.max() - 3]
        return np.array([level.max(), pitch.mean(), pitch.std(), level.std(), (np.diff(level > level.max() - 3)).sum()])

    known = {emotion: np.array([heard(f"known/{i}", emotion) for i in range(30)]) for emotion in EMOTIONS}
    scale = np.concatenate([*known.values()]).std(0)
    centres = {emotion: np.median(values, 0) for emotion, values in known.items()}
    right = 0
    for emotion in EMOTIONS:
        for i in range(20):
            found = heard(f"new/{i}", emotion)
            right += min(centres, key=lambda name: np.abs((found - centres[name]) / scale).sum()) == emotion
    assert 0.8 < right / (20 * len(EMOTIONS)) < 0.99, "the others are calm whatever is felt"
