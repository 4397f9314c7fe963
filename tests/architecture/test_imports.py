"""Imports point down, services stay apart, and the protocol code knows no network."""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

NO_NETWORK = {"grpc", "asyncio", "socket", "structlog", "requests", "http", "ssl"}
PURE = ["libs/core", "libs/mpc", "libs/dp"]


def test_the_import_contracts_hold() -> None:
    tool = Path(sys.executable).parent / "lint-imports"
    result = subprocess.run(
        [tool, "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stdout + result.stderr


@functools.cache
def imported(path: Path) -> set[str]:
    """Top-level names of everything a file imports, within functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("package", PURE)
def test_protocol_code_imports_no_network(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        assert not imported(path) & NO_NETWORK, path


def test_torch_and_numba_stay_within_the_ring_kernels() -> None:
    kernels = ROOT / "libs" / "mpc" / "kernels"
    for path in (ROOT / "libs" / "mpc").rglob("*.py"):
        if kernels not in path.parents:
            assert not imported(path) & {"torch", "numba"}, path


def test_privacy_accounting_needs_no_torch_and_numpy_in_two_files_alone() -> None:
    with_numpy = {"loss_distribution.py", "discrete_gaussian.py"}
    for path in (ROOT / "libs" / "dp").rglob("*.py"):
        allowed = {"libs"} | ({"numpy"} if path.name in with_numpy else set())
        assert imported(path) <= set(sys.stdlib_module_names) | allowed, path


def test_training_plans_are_read_without_torch() -> None:
    """Processes that only check plans start fast and stay small."""
    code = "import sys, libs.fl.privacy; assert not {'torch', 'opacus', 'numpy'} & set(sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env=environment)


def test_nothing_unpickles() -> None:
    unsafe = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    for top in ("libs", "services"):
        for path in (ROOT / top).rglob("*.py"):
            assert not imported(path) & unsafe, path


def test_the_standard_library_alone_is_enough_for_core() -> None:
    for path in (ROOT / "libs" / "core").rglob("*.py"):
        assert imported(path) <= set(sys.stdlib_module_names) | {"libs"}, path
