"""The commands, scores and links of README.md, docs/ and CONTRIBUTING.md, tried.

python -m tests.test_readme     writes the dumps of docs/demo.md anew, from the run of `make demo` in output/demo
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import compute_result
from swift_plugins.options import parser
from swift_plugins.scoring.scores import VERSION
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
DEMO = ROOT / "docs" / "demo.md"
DUMP = re.compile(r"^```\n\$ python compute_result\.py (.*?[^\\])\n(.*?)^```$", re.M | re.S)  # arguments, output
DUMPS = [(shlex.split(command.replace("\\\n", " ")), text) for command, text in DUMP.findall(DEMO.read_text("utf-8"))]
GOLD = {"msa": "Positive.", "mer": "Neutral.", "fer": "lips parted", "eri": "She is happy.", "ecpe": "2_joy,2"}


@pytest.mark.slow
def test_data_steps_of_the_readme(world, tmp_path):
    """Steps 1 to 3 as they stand, on the synthetic dataset; its OpenFace tables take the place of OpenFace itself."""
    steps = README.partition("# 1. ")[2].partition("# 4. ")[0]
    steps = steps.replace("--openface /opt/OpenFace/build/bin", "--csv raw/mosei/openface")
    assert "--csv" in steps and "build_amt" in steps
    shutil.copytree(world, tmp_path / "raw")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", "# " + steps],  # the doctor would end with 1 where something breaks results
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "error" not in done.stderr, done.stderr
    assert (tmp_path / "doctor" / "doctor.html").is_file()
    written = {file.name for file in (tmp_path / "amt").iterdir()}
    assert {f"report.{split}.json" for split in ("train", "dev", "test")} <= written
    assert {"mosei.fer.train.jsonl", "meld.mer.test.jsonl", "ecf.ecpe.test.jsonl", "mosei.msa.dev.jsonl"} <= written


CODE = re.compile(r"^```.*?^```", re.M | re.S)


def commands(text: str, kind: str = "```") -> list[str]:
    """The lines of the code blocks that begin like this, without comments."""
    blocks = [block.splitlines()[1:-1] for block in CODE.findall(text) if block.startswith(kind)]
    lines = (re.sub(r"(^|\s+)#.*", "", line).rstrip() for block in blocks for line in block)
    return [line for line in lines if line]


def test_the_chinese_readme_says_the_same():
    """Its commands, what stands in backquotes, its figures and its links are those of the English one."""
    chinese = (ROOT / "README.zh.md").read_text(encoding="utf-8")
    assert commands(chinese) == commands(README) and len(commands(README)) > 20
    ours, theirs = (
        CODE.sub("", text).replace("README.zh.md", "").replace("README.md", "") for text in (chinese, README)
    )
    for what in (r"`[^`]+`", r"\]\(([^)#]*)\)", r"^## ", r"^\|", r"(?<![\w.])\d[\d.,]*\d(?![\w.])"):
        found, wanted = (sorted(" ".join(x.split()) for x in re.findall(what, text, re.M)) for text in (ours, theirs))
        assert set(found) == set(wanted), set(found) ^ set(wanted)
        assert what not in (r"^## ", r"^\|") or len(found) == len(wanted)


# Commands of the README and docs/, by their beginning, and the test that runs them as they stand or on its own folders;
# what none runs has the reason. Those of docs/own-data.md are typed word for word by test_own_data.py.
STAGES = "test_emotion_llama.py::test_both_stages_train_from_the_converted_state_and_go_back"
HEARD = "test_emotion_llama.py::test_a_row_hears_what_was_prepared_and_when_serving_what_was_not"
ABLATION = "test_ablation.py::test_runs_are_planned_made_once_and_reported, with fewer variants: all take an hour"
RUN_BY = {
    "make demo": "minutes: test_stages.py::test_both_stages_inference_and_scores runs what it runs, a seventh as long",
    "make test": "this is it",
    "source .venv/bin/activate": "this is it",
    "pip install": "test_package.py::test_the_wheel_holds_packages_configs_and_scripts; nothing is downloaded in tests",
    "python ask.py": "test_ask.py::test_clips_and_pictures_of_ones_own",
    "python -m data_prep.doctor --meld": "test_readme.py::test_data_steps_of_the_readme",
    "python -m data_prep.fer --dataset mosei": "test_readme.py::test_data_steps_of_the_readme",
    "build": "test_readme.py::test_data_steps_of_the_readme",
    "export CONFIG=emoverse-4b": "test_configs.py: the model is not at hand; test_stages.py sets them for the demo's",
    "bash shell/first_stage.sh": "test_training.py::test_killed_and_resumed",
    "bash shell/second_stage.sh": "test_stages.py::test_both_stages_inference_and_scores",
    "bash shell/test.sh": "test_stages.py::test_both_stages_inference_and_scores",
    "python compute_result.py output/4b": "test_compute_result.py::test_published_figures_and_forgetting",
    "python -m data_prep.build_amt … --audio": "test_build_amt.py::test_rows_list_the_sound_track_of_their_clip",
    "CONFIG=qwen2.5-omni": "test_omni.py::test_two_steps_and_answers_from_rows_with_sound",
    "python -m swift_plugins.emotion_llama.convert": STAGES,
    "swift infer configs/emotion-llama/infer.yaml": STAGES,
    "CONFIG=emotion-llama": STAGES,
    "AMT_FEATURES=features CONFIG=emotion-llama": HEARD,
    "bash shell/emotion_llama_demo.sh": "test_emotion_llama_demo.py, piece by piece: it takes a quarter of an hour",
    "for split in train dev test": "test_mmeverse_reader.py builds the synthetic tables with the command",
    'C="python': STAGES,
    "$C": STAGES,
    "export AMT_FEATURES": "test_configs.py: the model is not at hand; the demo of v2 sets them for its own",
    "python compute_result.py output/emotion": "test_mmeverse_scores.py",
    "bash shell/emotion_llama_v2_demo.sh": "test_emotion_llama_demo.py, piece by piece: it takes half an hour",
    "python -m data_prep.peak_frame": "test_peak_frame.py::test_command_writes_the_picture_and_the_plot",
    "python -m data_prep.fer … --plot": "test_fer.py::test_a_run_is_not_mixed_with_another",
    "python -m data_prep.features": "test_features.py::test_killed_and_run_again",
    "export DATA=amt MERGED": "test_vllm.py::test_the_scripts_answer_from_a_merged_folder_and_hand_on_the_backend",
    "BACKEND=vllm": "needs a GPU: test_vllm.py does what vLLM does to a prompt, and runs the scripts up to it",
    "RESULT=output/plain": "test_vllm.py::test_the_scripts_answer_from_a_merged_folder_and_hand_on_the_backend",
    "python -c": "test_vllm.py::test_the_command_of_the_docs_counts_equal_answers",
    "export AMT_CACHE": "test_features.py::test_training_skips_the_tower_with_the_same_losses",
    "MODEL=/models/InternVL2-4B DATA=amt bash shell/ablation.sh": ABLATION,
    "bash shell/ablation.sh ablation-demo": ABLATION,
    "export MODEL=models/small DATA=amt-text": ABLATION,
    "bash shell/ablation.sh small": ABLATION,
    "python -m benchmarks.ablation_report": ABLATION,
    "python -m data_prep.small_backbone": "test_small_backbone.py::test_logits_are_those_of_the_weights_and_it_speaks",
    "python -m data_prep.hold_out": "test_hold_out.py::test_conversations_stay_whole_and_in_order",
    "python -m data_prep.build_amt --meld": "test_build_amt.py",
    "python -m data_prep.build_amt --data mosi": "test_declared.py::test_mosi_is_read_as_mosei_is",
    "export CONFIG=small": "test_small_backbone.py::test_two_steps_on_text",
    "python -m data_prep.eri": "test_eri_pipeline.py::test_reasons_from_a_served_model",
    "python -m data_prep.build_amt --merr": "test_merr.py::test_rows_of_emotion_reason_and_face",
    "python -m data_prep.merr --export": "test_merr.py::test_clips_are_linked_and_listed",
    "python -m data_prep.fer --dataset mine.yaml": "test_own_data.py::test_the_tutorial_from_a_table_to_scores",
    "AMT_DATA=amt python -m swift_plugins.mixture": "test_mixture.py::test_plan_command",
    "python -m app": "test_app.py::test_browse",
    "python -m app --eri": "test_app.py::test_five_reasons_are_reviewed_by_keyboard_and_the_page_goes_on",
    "python -m data_prep.build_amt … --review": "test_eri_review.py::test_the_builder_takes_a_review",
    "python -m swift.cli.app": "test_app.py::test_swift_app_chats_with_our_model_type_and_ends_with_its_server",
    "AMT_DATA=amt swift eval": "test_swift_eval.py::test_answers_and_figures_are_those_of_infer, where evalscope is",
    "python compute_result.py eval_output": "test_swift_eval.py::test_answers_and_figures_are_those_of_infer",
    "mkdir -p ~/openface": "test_openface.py::test_docker_wrapper",
    "for name in FeatureExtraction": "test_openface.py::test_docker_wrapper",
    "python -m data_prep.fer … --openface": "test_openface.py::test_docker_wrapper",
}


def test_every_command_is_run_by_a_test_or_has_a_reason():
    texts = [path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md") if path.name != "own-data.md"]
    written = [line for text in (README, *texts) for line in commands(text.replace("\\\n", " "), "```bash")]
    written = [line for line in written if not line.startswith((" ", "}"))]  # the body of a function
    assert len(written) > 20
    assert not [line for line in written if not line.startswith(tuple(RUN_BY))]
    for beginning, runner in RUN_BY.items():
        assert any(line.startswith(beginning) for line in written), f"{beginning}: no such command any more"
        if named := re.search(r"(test_\w+\.py)(?:::(\w+))?", runner):
            file, test = named.groups("")
            assert f"def {test or 'test_'}" in (ROOT / "tests" / file).read_text("utf-8"), runner
        else:
            assert runner == "this is it"


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 200


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_files_that_are_named_exist(text):
    folders = "data_prep|swift_plugins|configs|shell|tests|benchmarks|docs"
    named = set(re.findall(rf"\b(?:{folders})/[\w./]*\w\.(?:py|yaml|sh|md)", text))
    assert named and not [name for name in named if not (ROOT / name).is_file()]


def test_contributing_names_every_module_in_its_room():
    """The tree of CONTRIBUTING: a line that begins with a folder names the modules in it."""
    tree = CONTRIBUTING.split("## What is where")[1].split("```")[1]
    for package, following in (("data_prep", "swift_plugins"), ("swift_plugins", "app"), ("app", "none")):
        lines = tree.split(f"{package}/\n")[1].split(f"\n{following}/")[0].splitlines()
        rooms = {line.split()[0].rstrip("/"): line for line in lines if line.split() and line.split()[0].endswith("/")}
        for file in sorted((ROOT / package).rglob("*.py")):
            if file.stem in ("__init__", "__main__"):
                continue
            room = file.parent.name
            where = "\n".join(lines) if room == package else rooms[room]
            assert re.search(rf"\b{file.stem}\b", where), file.relative_to(ROOT)


# docs/demo.md


def form(printed: str) -> list[str]:
    """What does not depend on the answers: names and order of lines and columns, and the scorer's version."""
    told = re.compile("  (unparsed: |all |INCOMPLETE |whether |no utterance |CONTAMINATED )")  # of answers and of rows
    lines = [line for line in printed.strip().splitlines() if not told.match(line)]
    text = "\n".join(lines).replace(f"version:{VERSION}", "version:today")
    text = re.sub(r"(F1 per class[^:]*:)( \w+ \d+\.\d \(\d+\),?)+$", r"\1 CLASSES", text, flags=re.M)
    text = re.sub(r"\([^()]*report\.train\.json\)", "FILE", text)
    text = re.sub(r"[-+]?\d[\d,.]*", "N", text)
    return re.sub(r"[ \t]+", " ", text).splitlines()


def figures(printed: str) -> dict[tuple[str, str], list[str]]:
    """(channel, metric) → the columns of its line in a dump, without that of the official reading."""
    found, channel, official = {}, "", False
    for line in printed.partition("change since")[0].splitlines():
        if head := re.match(r"(\w+\.\w+): n ", line):
            channel = head[1]
        elif line.strip().startswith("strict"):
            official = "official" in line
        elif row := re.match(r"  (\w[\w ]*?)((?:  +-?\d+\.\d+)+)$", line):
            cells = row[2].split()
            found[channel, row[1]] = cells[:2] + cells[3:] if official and "semeval" not in row[1] else cells
    return found


def test_the_demo_page_has_both_dumps_and_their_commands_parse():
    for arguments, _ in DUMPS:
        options = parser(compute_result.Options, None, "compute_result.py").parse_args(arguments)
        assert options.files and options.built
    assert [len(figures(text)) for _, text in DUMPS] == [35, 35]


def test_the_dumps_have_the_form_that_is_printed_today(tmp_path, monkeypatch, capsys):
    """One answered row per channel of the page, scored now, prints the lines and columns of the page."""
    built = tmp_path / "report.train.json"
    built.write_text(json.dumps({"split": "train", "clips": {"ecf": {}}, "options": {}}))
    for arguments, text in DUMPS:
        facts = {"dialogue": "dia1", "index": 2, "emotion": "joy", "previous": 1}
        rows = [
            {"id": "a", "channel": channel, "labels": GOLD[task], "response": GOLD[task], "facts": facts}
            for channel, task in re.findall(r"^(\w+\.(\w+)): n ", text, re.M)
        ]
        result = tmp_path / "result.jsonl"
        result.write_text("".join(json.dumps(row) + "\n" for row in rows))
        before = ["--before", str(result)] if "--before" in arguments else []
        monkeypatch.setattr(sys, "argv", ["compute_result.py", str(result), "--built", str(built), *before])
        assert compute_result.main() == 0
        assert form(text) == form(capsys.readouterr().out)


def test_the_table_of_the_readme_is_that_of_the_page():
    stages = [figures(text) for _, text in DUMPS]
    lines = re.findall(r"^\| `(\w+\.\w+)` (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", README, re.M)
    assert len(lines) == 5
    for channel, words, *shown, baselines in lines:
        metric = {"F1": "f1", "F1 (paper)": "paper f1"}.get(words, words)
        of_page = [[float(value) for value in stage[channel, metric]] for stage in stages]
        # The page has two decimals, the README one: of the figure itself, not of the page's rounding.
        assert [float(value) for value in shown] == pytest.approx([strict for strict, *_ in of_page], abs=0.0551), (
            channel
        )
        named = [float(value) for value in re.findall(r"\d+\.\d", baselines)]
        assert named and named == pytest.approx(of_page[0][2 : 2 + len(named)], abs=0.0551), channel


def run_demo_scores(arguments: list[str]) -> str:
    """What the command of a dump prints of the demo run in output/demo."""
    command = [sys.executable, "compute_result.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_the_dumps_are_those_of_the_demo_run_that_is_here():
    """Names, sizes and baselines to the letter, the model's figures within 10 points: other processors round otherwise.

    On the machine of the page two runs were equal; how far another machine is has not been measured.
    """
    if not (ROOT / "output" / "demo" / "stage2.test.jsonl").is_file():
        pytest.skip("no run of `make demo` in output/demo")
    for arguments, text in DUMPS:
        printed = run_demo_scores(arguments)
        assert form(text) == form(printed)
        assert re.findall(r"^\w+\.\w+: n [^u]*", text, re.M) == re.findall(r"^\w+\.\w+: n [^u]*", printed, re.M)
        shown, now = figures(text), figures(printed)
        for line, columns in shown.items():
            assert columns[2:] == now[line][2:], line
            for column, value in zip(columns[:2], now[line], strict=False):
                assert float(column) == pytest.approx(float(value), abs=10), line


if __name__ == "__main__":
    page = DEMO.read_text(encoding="utf-8")
    for arguments, text in DUMPS:
        page = page.replace(text, run_demo_scores(arguments).rstrip() + "\n")
    DEMO.write_text(page, encoding="utf-8")
