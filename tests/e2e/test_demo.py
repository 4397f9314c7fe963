"""The demo as a person starts it, beside another one, and stopped in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from libs.cli.demo.summary import without_volatile
from libs.data.phantom import make_phantoms

pytestmark = pytest.mark.timeout(280)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny data set in MedMNIST's form, of made-up images."""
    images = make_phantoms(160, size=28, seed=4)
    # One image per patient: the file has no list of patients.
    train, test = slice(0, 120), slice(120, 160)
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    np.savez(
        path,
        train_images=images.images[train],
        train_labels=images.labels[train, None],
        val_images=images.images[:8],
        val_labels=images.labels[:8, None],
        test_images=images.images[test],
        test_labels=images.labels[test, None],
    )
    return path


def start_demo(data: Path, output: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "libs.cli.main", "demo", "--data", str(data), "--output", str(output)]
    command += ["--hospitals", "2", "--size", "16", "--rounds", "1", "--seed", "7"]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_hear_ctrl_c,  # noqa: PLW1509 - this process has no thread that could hold a lock
    )


def _hear_ctrl_c() -> None:
    """A job in the background, as CI may be, ignores Ctrl-C and hands that on; a terminal does not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def services_below(pid: int) -> list[psutil.Process]:
    """The services that a demo started and that still run."""
    return [
        child
        for child in psutil.Process(pid).children(recursive=True)
        if any(argument.startswith("services.") for argument in child.cmdline())
    ]


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two demos with one seed, beside each other, writing into one folder."""
    output = tmp_path_factory.mktemp("runs")
    demos = [start_demo(data, output) for _ in range(2)]
    try:
        for demo in demos:
            printed, _ = demo.communicate(timeout=240)
            assert demo.returncode == 0, printed
    finally:
        for demo in demos:
            demo.kill()
    return sorted(path for path in output.iterdir() if not path.is_symlink())


def _summary(run: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return summary


def test_two_demos_beside_each_other_both_end_well(runs: list[Path]) -> None:
    assert len(runs) == 2
    for run in runs:
        assert _summary(run)["encrypted"]["images"] == 40
        assert (run / "index.html").stat().st_size > 10_000


def test_the_same_seed_gives_the_same_summary_but_for_times(runs: list[Path]) -> None:
    first, second = (without_volatile(_summary(run)) for run in runs)
    assert first == second


def test_latest_points_at_one_of_the_runs(runs: list[Path]) -> None:
    link = runs[0].parent / "latest"
    assert not link.readlink().is_absolute()
    assert link.resolve() in {run.resolve() for run in runs}


def test_keys_shares_and_images_are_gone_and_the_logs_are_kept(runs: list[Path]) -> None:
    for run in runs:
        assert {path.name for path in run.iterdir()} == {"summary.json", "index.html", "logs"}
        assert len(list((run / "logs").iterdir())) == 6


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_demo_that_is_stopped_leaves_no_process_key_share_or_image(
    data: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    demo = start_demo(data, tmp_path)
    try:
        deadline = time.monotonic() + 60
        while len(services := services_below(demo.pid)) < 6:
            assert time.monotonic() < deadline
            assert demo.poll() is None
            time.sleep(0.1)
        os.kill(demo.pid, number)
        printed, _ = demo.communicate(timeout=60)
    finally:
        demo.kill()
    _, alive = psutil.wait_procs(services, timeout=5)
    assert not alive
    assert demo.returncode == code
    assert "Traceback" not in printed
    (run,) = tmp_path.iterdir()
    assert [path.name for path in run.iterdir()] == ["logs"]
