"""The command line, as a user gives it: each test starts a program."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
from conf.cli import main, preflight

preflight(__name__)

import json
import sys
import time
from pathlib import Path

from conf.load import load, run_folder

heavy = {"torch", "prefect", "dask", "distributed", "numpy"} & set(sys.modules)
assert not heavy, heavy
Path("started").touch()


def flow(config_name: str, overrides: list[str]) -> Path:
    config = load(config_name, overrides)
    if config.model.seed == 1:
        raise FileNotFoundError("no folder /nowhere: data.path says where the images are")
    if config.model.seed == 2:
        raise RuntimeError("our mistake")
    if config.model.seed == 3:
        print("waiting", flush=True)
        time.sleep(30)
    folder = run_folder(config)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps({"e.top1_error": config.algorithm.n_push / 8}))
    print("ran", folder)
    return folder


if __name__ == "__main__":
    main(flow)
"""


@pytest.fixture
def start(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)

    def start(*arguments: str, **more_environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "program.py", *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | more_environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def run(start):
    def run(*arguments: str, **more_environment: str) -> "tuple[int, str, str]":
        process = start(*arguments, **more_environment)
        out, err = process.communicate(timeout=30)
        return process.returncode, out, err

    return run


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_run_writes_to_its_own_folder_and_hydra_to_none(run, tmp_path):
    code, out, err = run("experiment=demo", "algorithm.n_push=4")
    assert (code, out, err) == (0, "ran outputs/demo\n", "")
    assert files(tmp_path) == {"program.py", "started", "outputs"}
    assert files(tmp_path / "outputs") == {"demo"}


def test_a_bad_command_line_ends_within_two_seconds_before_anything_starts(run, tmp_path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code, out, err = run("algorithm.npush=4", "model.dropout=2", "data.input.crop_size=28")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Of the processor, because others may use it too while tests run.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
    assert (code, out) == (2, "")
    assert err.startswith("3 configuration errors:\n  1. override 'algorithm.npush=4': unknown key")
    assert files(tmp_path) == {"program.py"}


def test_a_sweep_runs_every_combination_and_writes_one_table(run, tmp_path):
    code, out, err = run("-m", "algorithm.n_push=1,4", "model.seed=0,1")
    assert code == 1
    assert err.count("no folder /nowhere") == 2
    assert out.count("ran outputs/quick-") == 2
    (table,) = (tmp_path / "outputs" / "sweeps").glob("*/summary.md")
    rows = table.read_text().splitlines()
    assert rows[0].startswith("| run | algorithm.n_push | model.seed | e.top1_error |")
    assert len(rows) == 6
    assert "0.125" in rows[2]
    assert "failed: FileNotFoundError" in rows[3]
    assert table.read_text() in out


def test_a_sweep_with_one_bad_run_starts_none(run, tmp_path):
    code, out, err = run("-m", "algorithm.n_push=1,0")
    assert (code, out) == (2, "")
    assert "override 'algorithm.n_push=0'" in err
    assert files(tmp_path) == {"program.py"}


def test_what_a_user_can_mend_is_one_message_and_our_mistakes_show_the_traceback(run):
    code, _, err = run("model.seed=1")
    assert code == 1
    assert err.splitlines() == [
        "error: no folder /nowhere: data.path says where the images are",
        "(the traceback: HYDRA_FULL_ERROR=1)",
    ]
    assert "Traceback" in run("model.seed=1", HYDRA_FULL_ERROR="1")[2]
    code, _, err = run("model.seed=2")
    assert code == 1
    assert "Traceback" in err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--help"], "experiment: cifar10, demo, imagenet_d, mixed, none, quick"),
        (["--cfg", "job", "algorithm.n_push=4"], "  n_push: 4\n"),
        (["--info", "defaults"], "experiment/quick"),
        (["--hydra-help"], "--multirun,-m"),
    ],
)
def test_hydras_own_questions_are_answered_without_starting(run, tmp_path, arguments, part):
    code, out, _ = run(*arguments)
    assert code == 0
    assert part in out
    assert files(tmp_path) == {"program.py"}


@pytest.mark.parametrize(
    ("arguments", "limit"),
    [
        ([], 2000),
        (["experiment=quick", "data=folder"], None),
        (["data=folder", "data.staging.max_train_samples=300"], 300),
    ],
)
@pytest.mark.parametrize("package", [(), ("--package", "data.staging")])
def test_the_settings_shown_are_those_of_the_run(run, arguments, limit, package):
    path = ["data.path=photos"] if arguments else []
    code, out, err = run(*arguments, *path, "--cfg", "job", *package)
    assert (code, err) == (0, "")
    shown = yaml.safe_load(out)
    assert (shown if package else shown["data"]["staging"])["max_train_samples"] == limit


@pytest.mark.parametrize(
    "arguments",
    [["--config-name", "nope"], ["--config-dir", "."], ["--experimental-rerun", "x.pickle"]],
)
def test_a_flag_that_cannot_be_honoured_is_refused(run, arguments):
    code, _, err = run(*arguments)
    assert code == 2
    assert "nope" in err or arguments[0] in err


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_a_signal_ends_the_program_with_its_own_code(start, number, code):
    process = start("model.seed=3")
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=10)
    assert process.returncode == code
    assert "Traceback" not in err
