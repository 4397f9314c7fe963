"""The checked-in code is what the protos generate."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ROOT / "libs" / "rpc" / "_generated"


def contents(folder: Path) -> dict[str, str]:
    files = [path for pattern in ("*.py", "*.pyi") for path in folder.rglob(pattern)]
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def test_the_generated_code_equals_the_protos(tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    subprocess.run(
        [sys.executable, str(ROOT / "protos" / "generate.py"), "--check", str(fresh)], check=True, cwd=ROOT
    )
    expected, found = contents(fresh), contents(GENERATED)
    assert len(expected) > 10
    different = sorted(
        name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
    )
    assert different == [], "Run: make proto"
