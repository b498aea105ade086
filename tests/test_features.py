"""What the vision tower saw, prepared on disk: the same answers, losses and gradients, and never another's features."""

import json
import logging
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import load_file
from swift.infer_engine import InferRequest, RequestConfig, TransformersEngine
from transformers import AutoModelForImageTextToText

import swift_plugins.emoverse  # noqa: F401
from data_prep.features import main, named_media
from swift_plugins import features as vision
from swift_plugins.answering import AnsweringEngine
from swift_plugins.features import Features, refuse_trained, tower_digest
from swift_plugins.files import InputError
from swift_plugins.internvl2 import load_internvl2, native_config
from tests.conftest import in_process, process
from tests.test_frames import write_clip
from tests.test_template import row, template_of
from tests.tiny_amt import tiny_amt
from tests.tiny_internvl2 import tiny_checkpoint
from tests.warm_swift import FORKS, swift

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.swift


def command(model, data, out, *flags, status=0, run=in_process, **env):
    done = run("-m", "data_prep.features", "--model", model, "--data", data, "--out", out, *flags, **env)
    assert done.returncode == status, done.stderr
    return done


def entries(folder):
    return sorted(folder.glob("??/*.safetensors"))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(model, AMT rows, features of all their media)."""
    folder = tmp_path_factory.mktemp("features")
    model, data = tiny_checkpoint(folder / "model", "phi3"), tiny_amt(folder / "amt")
    said = command(model, data, folder / "out").stdout
    assert said.splitlines()[0] == "2 clips of 8 frames and 2 pictures, 0 of them there already"
    assert said.splitlines()[1].startswith("1,024 bytes a tile in float32, 18 tiles at most: 0.1 MB, and ")
    assert said.splitlines()[2] == f"4 of 4 are prepared: AMT_FEATURES={folder / 'out'}"
    return model, data, folder / "out"


@pytest.fixture
def warnings(caplog):
    """What ms-swift's logger, which hands nothing on, warns of."""
    logger = logging.getLogger("swift")
    logger.addHandler(caplog.handler)
    yield lambda: [record.getMessage() for record in caplog.records if "AMT_FEATURES" in record.getMessage()]
    logger.removeHandler(caplog.handler)


def encoded(model, folder, monkeypatch, **media):
    monkeypatch.setenv("AMT_FEATURES", str(folder))
    query = "".join(f"<{kind.rstrip('s')}>" for kind, paths in media.items() for _ in paths)
    return template_of(model).encode(row(query, **{kind: [*map(str, paths)] for kind, paths in media.items()}))


def test_towers_are_told_apart_by_what_they_compute(tmp_path):
    """The original folder, one shard or many, and a merged export are one; other weights or settings are another."""
    model = tiny_checkpoint(tmp_path / "model", "internlm2")
    sharded = tiny_checkpoint(tmp_path / "sharded", "internlm2", max_shard_size="50KB")
    load_internvl2(model).save_pretrained(tmp_path / "exported")
    load_internvl2(model, torch.float16).save_pretrained(tmp_path / "half")
    trained = AutoModelForImageTextToText.from_pretrained(tmp_path / "exported")
    for name, weight in trained.named_parameters():
        if "vision_tower" not in name:
            torch.nn.init.normal_(weight)
    trained.save_pretrained(tmp_path / "trained")
    assert len([*sharded.glob("*.safetensors")]) > 1

    def digest(name, dtype=torch.float32, **changed):
        config = native_config(tmp_path / name)
        for key, value in changed.items():
            setattr(config.vision_config if hasattr(config.vision_config, key) else config, key, value)
        return tower_digest(tmp_path / name, config, dtype)

    same = digest("model")
    assert {digest(name) for name in ("sharded", "exported", "trained")} == {same}
    assert digest("model", torch.float16) == digest("half", torch.float16), "as it computes, not as it is stored"
    assert digest("half") != same
    tiny_checkpoint(tmp_path / "other", "internlm2", seed=1)
    assert digest("other") != same
    assert digest("model", layer_norm_eps=1e-3) != same and digest("model", vision_feature_layer=-2) != same


def test_a_row_takes_its_features_and_opens_no_file(world, monkeypatch, warnings):
    model, data, folder = world
    monkeypatch.setattr("swift_plugins.template.sample_frames", None)
    found = encoded(model, folder, monkeypatch, images=[data / "0.png"], videos=[data / "clip0.mp4"])
    assert "pixel_values" not in found and found["vision_features"].shape == (9, 4, 64)
    assert found["prepared"].tolist() == [True] * 9 and not warnings()
    assert found["vision_features"].dtype == torch.float32


def test_pictures_without_a_file_are_looked_at(world, monkeypatch, warnings):
    """As a server is sent them: bytes, an opened picture."""
    model, data, folder = world
    monkeypatch.setenv("AMT_FEATURES", str(folder))
    template, sent = template_of(model), data / "0.png"
    for image in ({"bytes": sent.read_bytes(), "path": None}, Image.open(sent)):
        found = template.encode(row("<image>", images=[image]))
        assert len(found["pixel_values"]) == 1 and "vision_features" not in found
    assert not warnings()
    found = template.encode(row("<image>", images=[{"bytes": None, "path": str(sent)}]))
    assert "pixel_values" not in found and found["prepared"].tolist() == [True]


def test_another_towers_features_are_not_taken(world, tmp_path, monkeypatch, warnings):
    model, data, folder = world
    media = {"images": [data / "0.png"], "videos": [data / "clip0.mp4"]}
    other = tiny_checkpoint(tmp_path / "other", "phi3", seed=1)
    found = encoded(other, folder, monkeypatch, **media)
    assert len(found["pixel_values"]) == 9 and "vision_features" not in found
    assert warnings() == [
        f"AMT_FEATURES={folder} was made for other weights of the vision tower, those of {model}; "
        "pictures are looked at as without"
    ]
    done = command(other, data, folder, status=2)
    assert done.stderr == f"error: {folder}: holds features of another kind (tower of {model}): give another --out\n"


def test_other_frames_and_other_precision_find_nothing(world, monkeypatch, warnings):
    model, data, folder = world
    monkeypatch.setenv("VIDEO_SEGMENTS", "4")
    found = encoded(model, folder, monkeypatch, videos=[data / "clip0.mp4"])
    assert len(found["pixel_values"]) == 4
    half = Features(folder, model, native_config(model), torch.float16)
    assert half.find(data / "0.png", {"tiles": 1, "side": 56, "version": 1}) is None
    assert half.find(data / "1.png", {"tiles": 1, "side": 56, "version": 1}) is None
    assert [line.partition(f"{folder} ")[2].partition(";")[0] for line in warnings()] == [
        'was made from other frames or tiles than {"frames": 4, "tiles": 1, "side": 56, "version": 1}',
        "was made in float32, and this model computes in float16",
    ]


def test_a_file_replaced_by_another_of_its_name_is_looked_at(world, tmp_path, monkeypatch, warnings):
    model, _, _ = world
    data = tiny_amt(tmp_path / "amt")
    command(model, data, tmp_path / "out")
    clip = data / "clip0.mp4"
    times = clip.stat().st_atime_ns, clip.stat().st_mtime_ns
    time.sleep(0.02)
    write_clip(clip, n=30)
    os.utime(clip, ns=times)
    found = encoded(model, tmp_path / "out", monkeypatch, videos=[clip, data / "clip1.mp4"])
    assert len(found["pixel_values"]) == 8 and found["prepared"].tolist() == [False] * 8 + [True] * 8
    assert [line.partition("out ")[2].partition(";")[0] for line in warnings()] == [
        f"holds nothing for {clip}, which was not prepared or has changed since"
    ]
    said = command(model, data, tmp_path / "out").stdout
    assert "3 of them there already" in said and len(entries(tmp_path / "out")) == 5


def test_an_entry_that_is_damaged_is_made_again(world, tmp_path, monkeypatch):
    model, data, folder = world
    shutil.copytree(folder, tmp_path / "out")
    for entry in entries(tmp_path / "out"):
        entry.write_bytes(entry.read_bytes()[:-1] + b"\1")
    found = encoded(model, tmp_path / "out", monkeypatch, images=[data / "0.png"])
    assert "vision_features" not in found
    assert "0 of them there already" in command(model, data, tmp_path / "out").stdout
    for entry in entries(folder):
        made, again = load_file(entry), load_file(tmp_path / "out" / entry.relative_to(folder))
        assert torch.allclose(made["features"], again["features"], rtol=1e-5, atol=1e-5)


def test_a_disk_that_is_too_small_is_refused_before_it_starts(world, tmp_path, monkeypatch):
    model, data, _ = world
    free = shutil.disk_usage(tmp_path)._replace(free=40_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free)
    done = command(model, data, tmp_path / "out", status=2)
    assert done.stderr == f"error: {tmp_path / 'out'}: the disk is too small: 0.1 MB are needed, 0.0 MB free\n"
    assert not entries(tmp_path / "out")


def test_what_cannot_be_decoded_is_named_and_the_others_are_prepared(world, tmp_path):
    model, _, _ = world
    data = tiny_amt(tmp_path / "amt")
    (data / "clip0.mp4").write_bytes(b"no clip")
    (data / "1.png").unlink()
    done = command(model, data, tmp_path / "out", status=1)
    errors = sorted(line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert [line.removeprefix(f"error: {data}/")[:22] for line in errors] == [
        "1.png: No such file or",
        "clip0.mp4: cannot be d",
    ]
    assert done.stdout.splitlines()[-1].startswith("2 of 4 are prepared") and len(entries(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    "flags, reason",
    [
        (["--batch", "0"], "--batch and --frames are 1 or more"),
        (["--device", "abacus"], "--device abacus: no such device"),
        (["--split", "dev"], "holds no rows of dev"),
    ],
)
def test_bad_options_are_refused(world, tmp_path, flags, reason):
    model, data, _ = world
    assert reason in command(model, data, tmp_path / "out", *flags, status=2).stderr
    assert not entries(tmp_path / "out")


def _in_a_process(argv):
    sys.argv = argv
    main()


def test_killed_and_run_again(world, tmp_path):
    """After SIGKILL what has a name is whole, is not made again, and the rest follows."""
    model, data, _ = world
    data = tiny_amt(tmp_path / "amt")
    with open(data / "meld.mer.train.jsonl", "a", encoding="utf-8") as file:
        for i in range(150):
            shutil.copy(data / "clip0.mp4", data / f"more{i}.mp4")
            answer = {"id": f"more{i}", "channel": "meld.mer", "query": "<video>", "response": "Joy."}
            file.write(json.dumps(answer | {"videos": [f"more{i}.mp4"]}) + "\n")
    assert len(named_media(data, ["train"])) == 154
    told = ["features", "--model", model, "--data", data, "--out", tmp_path / "out", "--jobs", "0", "--batch", "8"]
    killed = FORKS.Process(target=_in_a_process, args=([*map(str, told)],))
    killed.start()
    deadline = time.monotonic() + 120
    while len(entries(tmp_path / "out")) < 3:
        assert killed.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    killed.kill()
    killed.join()
    before = {entry: entry.stat().st_mtime_ns for entry in entries(tmp_path / "out")}
    content = {entry: entry.read_bytes() for entry in before}
    assert 3 <= len(before) < 154
    said = command(model, data, tmp_path / "out", run=process).stdout
    assert f"{len(before)} of them there already" in said and "154 of 154 are prepared" in said
    assert len(entries(tmp_path / "out")) == 154
    assert all(entry.read_bytes() == content[entry] for entry in before)


def test_greedy_answers_are_the_same_and_the_tower_rests(world, monkeypatch):
    model, data, folder = world
    requests = [
        InferRequest(messages=row("<video>Who?")["messages"][:1], videos=[str(data / "clip0.mp4")]),
        InferRequest(messages=row("Hm?")["messages"][:1]),
        InferRequest(messages=row("<image>Face?")["messages"][:1], images=[str(data / "1.png")]),
    ]

    def answers():
        engine = TransformersEngine(str(model), model_type="emoverse", torch_dtype=torch.float32, max_batch_size=3)
        looks = []
        engine.model.model.vision_tower.register_forward_hook(lambda *_: looks.append(1))
        said = engine.infer(requests, RequestConfig(max_tokens=8, temperature=0))
        return [response.choices[0].message.content for response in said], len(looks)

    without, looks = answers()
    monkeypatch.setenv("AMT_FEATURES", str(folder))
    assert looks == 1 and len(set(without)) > 1 and answers() == (without, 0)


def test_a_tile_that_several_rows_show_is_looked_at_once(world, monkeypatch):
    """While answers are written: within a bound, by the pixels alone, and as the tower sees it."""
    model = load_internvl2(world[0]).eval()
    looked, tower = [], vision.tower_output

    def counting(model, pixels):
        looked.append(len(pixels))
        return tower(model, pixels)

    monkeypatch.setattr(vision, "tower_output", counting)
    tiles = torch.rand(3, 3, 28, 28)
    seen = vision.Seen()
    with torch.no_grad():
        wanted = tower(model, tiles)
    assert torch.allclose(seen.look(model, tiles[[0, 1, 0]]), wanted[[0, 1, 0]], atol=1e-5) and looked == [2]
    assert torch.allclose(seen.look(model, tiles[[1, 2]]), wanted[[1, 2]], atol=1e-5) and looked == [2, 1]
    small = vision.Seen(most=wanted[0].nbytes)
    small.look(model, tiles)
    assert len(small.kept) == 1 and small.used == wanted[0].nbytes, "what was seen last"
    assert torch.allclose(small.look(model, tiles), wanted, atol=1e-5), "what was dropped is looked at again"


@pytest.mark.parametrize("kind", ["phi3", "internlm2"])
def test_answers_of_rows_that_are_looked_at_ahead(world, tmp_path, kind):
    """Many rows, of which several show one clip: the answers are those of single requests."""
    folder, clip = tiny_checkpoint(tmp_path / "model", kind), str(write_clip(tmp_path / "clip.mp4"))
    engine = TransformersEngine(str(folder), model_type="emoverse", torch_dtype=torch.float32, max_batch_size=1)
    words = ["Who?", "Why is it so, and since when?", "What now?"] * 3
    requests = [InferRequest(messages=row(f"<video>{word}")["messages"][:1], videos=[clip]) for word in words[:6]]
    requests += [InferRequest(messages=row(word)["messages"][:1]) for word in words[6:]]
    greedy = RequestConfig(max_tokens=6, temperature=0)
    alone = [answer.choices[0].message.content for answer in engine.infer(requests, greedy)]
    many = AnsweringEngine(engine.model, template=engine.template, max_batch_size=2)
    assert [answer.choices[0].message.content for answer in many.infer(requests, greedy)] == alone
    assert len(many._seen.kept) <= 8, "one clip of eight frames"


def test_a_tower_with_an_adapter_or_in_training_is_refused(world):
    model = load_internvl2(world[0])
    with pytest.raises(InputError, match="for a frozen vision tower"):
        refuse_trained(model)
    with torch.no_grad():
        refuse_trained(model)  # nothing is trained, and all weights are the folder's
    model.model.vision_tower.requires_grad_(False)
    refuse_trained(model)
    get_peft_model(model, LoraConfig(target_modules=r".*vision_tower.*q_proj"))
    with torch.no_grad(), pytest.raises(InputError, match="for a frozen vision tower"):
        refuse_trained(model)


def test_with_zero3_the_tower_runs_once_where_nothing_is_to_be_seen(world, monkeypatch):
    """Processes gather its weights together; the result does not change."""
    model = load_internvl2(world[0])
    looks = []
    model.model.vision_tower.register_forward_hook(lambda *_: looks.append(1))
    ready, prepared = torch.randn(3, 4, 64), torch.tensor([True] * 3)
    expected = vision.projected(model, None, ready, prepared)
    assert not looks
    monkeypatch.setattr(vision, "is_deepspeed_zero3_enabled", lambda: True)
    assert torch.equal(vision.projected(model, None, ready, prepared), expected) and len(looks) == 1


COUNTS = """
import os
import swift_plugins.emoverse
from transformers.models.internvl.modeling_internvl import InternVLVisionModel
look = InternVLVisionModel.forward
def counted(self, *args, **kwargs):
    with open(os.environ["LOOKS"], "a") as file:
        file.write("look")
    return look(self, *args, **kwargs)
InternVLVisionModel.forward = counted
"""


def test_training_skips_the_tower_with_the_same_losses(world, tmp_path):
    """`swift sft` as the scripts call it; with a tower that trains it ends before the first step."""
    model, data, folder = world
    plugin = tmp_path / "counts.py"
    plugin.write_text(COUNTS)
    flags = ["--model", model, "--dataset", "amt:stage1", "--external_plugins", plugin, "--max_steps", "3"]
    flags += ["--logging_steps", "1", "--save_strategy", "no", "--per_device_train_batch_size", "4"]

    def trained(name, *more, status=0, **env):
        environment = {"AMT_DATA": data, "AMT_MEDIA": data, "AMT_MIXTURES": data / "mixtures.yaml", "PYTHONPATH": ROOT}
        environment |= {"LOOKS": tmp_path / f"{name}.looks", "HOME": tmp_path} | env
        log = swift(
            "sft", ROOT / "configs/demo/stage1.yaml", *flags, "--output_dir", tmp_path / name, *more,
            cwd=tmp_path, status=status, **environment,
        )  # fmt: skip
        return log

    def losses(name):
        rows = map(json.loads, (tmp_path / name / "logging.jsonl").read_text().splitlines())
        return [row["loss"] for row in rows if "loss" in row]

    trained("without")
    trained("with", AMT_FEATURES=folder)
    assert (tmp_path / "without.looks").is_file() and not (tmp_path / "with.looks").exists()
    assert len(losses("with")) == 3 and losses("with") == pytest.approx(losses("without"), rel=1e-4)
    log = trained("refused", "--freeze_vit", "false", status=2, AMT_FEATURES=folder)
    assert log.splitlines()[-1].startswith("error: AMT_FEATURES is for a frozen vision tower")
