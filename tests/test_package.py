"""The project as a package: nothing shadows a library, and an installed wheel works from any folder."""

from __future__ import annotations

import ast
import importlib.machinery
import os
import subprocess
import sys
import sysconfig
import zipfile
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from swift_plugins import commands

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "swift_plugins"


def test_no_name_of_the_plugin_folder_shadows_a_library():
    """ms-swift puts the plugin's folder at the front of sys.path; an installed one holds configs and shell as well."""
    names = {path.stem for path in PACKAGE.iterdir()} - {"__pycache__", "__init__"} | {"configs", "shell"}
    elsewhere = [path for path in sys.path if Path(path).resolve() not in (ROOT, PACKAGE, Path.cwd())]
    libraries = {name for name in names if importlib.machinery.PathFinder.find_spec(name, elsewhere)}
    assert not libraries | (names & sys.stdlib_module_names)
    assert importlib.machinery.PathFinder.find_spec("yaml", elsewhere), "the search finds libraries"


def imports_of(source: Path) -> set[str]:
    """Names of the project's modules that a file imports anywhere, `from x import y` as x.y where that is a module."""
    names = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(source.relative_to(ROOT).parts[: -node.level]) if node.level else ""
            base = ".".join(filter(None, (start, node.module)))
            names |= {name if name in MODULES else base for name in (f"{base}.{alias.name}" for alias in node.names)}
    return names & MODULES.keys()


ROOMS = ("swift_plugins", "data_prep", "app", "benchmarks", "tests")  # each imports from itself and from the left
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for room in ROOMS
    for path in (ROOT / room).rglob("*.py")
}


def test_imports_run_one_way():
    """No circle, not even through an import inside a function, and none against the order of the rooms."""
    graph = {name: imports_of(path) - {name} for name, path in MODULES.items()}
    assert "swift_plugins.files" in graph["data_prep.build_amt"], "the search finds imports"
    assert not [
        (name, other)
        for name, others in graph.items()
        for other in others
        if ROOMS.index(other.split(".")[0]) > ROOMS.index(name.split(".")[0])
    ]
    TopologicalSorter(graph).prepare()  # a circle is a CycleError that names it


@pytest.mark.parametrize("command", [["ask.py", "x.mp4"], ["compute_result.py", "x"], ["-m", "data_prep.doctor"]])
def test_what_is_not_installed_is_said_in_one_line(command):
    done = subprocess.run([sys.executable, "-S", *command], cwd=ROOT, env={}, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert " has no av, jinja2" in done.stderr and "`make install` and `source .venv/bin/activate`" in done.stderr


HELP = """
import contextlib, io, runpy, sys
for module in sys.argv[1:]:
    sys.argv, said = [module, "--help"], io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert "usage: " in said.getvalue() and len(said.getvalue()) > 300, module
    heavy = {"torch", "transformers", "swift", "datasets", "gradio", "ray", "matplotlib"} & sys.modules.keys()
    assert not heavy, f"{module} --help imports {heavy}"
"""


def test_help_of_every_command_loads_nothing_that_takes_seconds(project):
    others = [
        "data_prep.demo",
        "data_prep.demo.checkpoint",
        "swift_plugins.complete_export",
        "swift_plugins.model_card",
    ]
    done = project("-c", HELP, *commands.MODULES.values(), *others)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["first_stage.sh", "second_stage.sh", "test.sh"])
def test_the_scripts_also_start_from_the_root(name, tmp_path):
    environment = os.environ | {"OUTPUT": str(tmp_path / "out"), "DATA": "/no/such", "MODEL": "/no/such"}
    done = [
        subprocess.run(["bash", ROOT / folder / name], env=environment, cwd=tmp_path, capture_output=True, text=True)
        for folder in ("", "shell")
    ]
    assert done[0].stderr == done[1].stderr != "" and done[0].returncode == done[1].returncode == 2


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Run a line of bash in an empty folder, where the wheel is installed beside the libraries of this environment."""
    folder = tmp_path_factory.mktemp("package")
    env, work = folder / "env", folder / "work"
    work.mkdir()
    wheel = ["wheel", ".", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder]
    subprocess.run([sys.executable, "-m", "pip", "-q", *wheel], cwd=ROOT, check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", env], check=True)
    site = next(env.glob("lib/*/site-packages"))
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"])
    (wheel,) = folder.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "-q", "--python", env / "bin" / "python", "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, wheel], check=True)
    swift = env / "bin" / "swift"  # as pip would have written it here
    swift.write_text(f"#!{env}/bin/python\nfrom swift.cli.main import cli_main\ncli_main()\n")
    swift.chmod(0o755)
    outside = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    outside |= {"PATH": f"{env / 'bin'}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "HOME": str(work)}

    def run(line: str, status: int = 0) -> str:
        done = subprocess.run(["bash", "-c", line], cwd=work, env=outside, capture_output=True, text=True)
        assert done.returncode == status, (done.stdout + done.stderr)[-3000:]
        return done.stdout + done.stderr

    run.wheel, run.site, run.work = wheel, site, work
    return run


def test_no_mark_of_a_merge_is_left():
    marks = ["-e", "^<<<<<<< ", "-e", "^>>>>>>> "]
    found = subprocess.run(["git", "grep", "-lI", *marks], cwd=ROOT, capture_output=True, text=True)
    if found.returncode > 1:
        pytest.skip(f"no checkout: {found.stderr.strip()}")
    assert not found.stdout


@pytest.mark.slow
def test_the_wheel_holds_packages_configs_and_scripts(installed):
    names = set(zipfile.ZipFile(installed.wheel).namelist())
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    for file in tracked:
        top = file.partition("/")[0]
        if top in ("app", "data_prep", "swift_plugins") or file in ("ask.py", "compute_result.py"):
            assert file in names
        elif top in ("configs", "shell"):
            assert f"swift_plugins/{file}" in names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {
        "app",
        "ask.py",
        "data_prep",
        "swift_plugins",
        "compute_result.py",
        "emoverse_swift",
    }


@pytest.mark.slow
def test_commands_and_paths_from_an_empty_folder(installed):
    paths = installed("for place in plugin configs shell; do emoverse path $place; done").split()
    assert all(Path(path).exists() and Path(path).is_relative_to(installed.site) for path in paths)
    assert "programs: build-amt" in installed("emoverse")
    assert "expected one of build-amt, fer" in installed("emoverse nothing", status=2)
    for program in ("build-amt", "score", "mixture", "doctor", "ask", "app"):
        assert "usage:" in installed(f"emoverse {program} --help")
    assert installed("MODEL=/no/such emoverse first-stage", status=2) == "error: MODEL=/no/such: holds no config.json\n"


@pytest.mark.swift
def test_from_raw_folders_to_training_in_an_empty_folder(installed):
    installed("python -m data_prep.demo --out raw --size tiny")
    fer = "--csv raw/mosei/openface --out raw/mosei --split train"
    installed(f"emoverse fer --dataset mosei --root raw/mosei {fer}")
    installed("emoverse build-amt --split train --out amt --meld raw/meld --mosei raw/mosei --ecf raw/ecf")
    log = installed(
        'AMT_DATA=amt AMT_MIXTURES="$(emoverse path configs)/demo/mixtures.yaml" swift sft '
        '"$(emoverse path configs)/demo/stage1.yaml" --model "$(emoverse path configs)/demo/checkpoint" '
        '--external_plugins "$(emoverse path plugin)" --dataset amt:stage1#20 --max_steps 2 --output_dir out'
    )
    assert list((installed.work / "out").rglob("adapter_model.safetensors")), log[-2000:]
    assert not (installed.work / "output").exists()
