"""Writes the Python code of the protos into libs/rpc/_generated. `make proto` runs it.

`--check DIR` writes into DIR instead, so that a test can compare without touching the tree.
"""

from __future__ import annotations

import argparse
import importlib.resources
import re
import shutil
import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
OUTPUT = ROOT.parent / "libs" / "rpc" / "_generated"
PACKAGE = "libs.rpc._generated"


def generate(output: Path) -> None:
    """Generate messages, stubs and type hints below `output`, replacing what is there."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    sources = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.proto"))
    arguments = ["protoc", f"-I{ROOT}", f"-I{well_known}"]
    arguments += [
        f"--{kind}={output}" for kind in ("python_out", "grpc_python_out", "mypy_out", "mypy_grpc_out")
    ]
    # The plugins of this environment, whether or not it is activated.
    scripts = Path(sys.executable).parent
    arguments += [f"--plugin={name}={scripts / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    if protoc.main([*arguments, *sources]) != 0:
        raise SystemExit("protoc failed; its messages are above")
    for path in [*output.rglob("*.py"), *output.rglob("*.pyi")]:
        _move_imports(path)
    for folder in {path.parent for path in output.rglob("*.py")} | {output, output / "trefoil"}:
        package = folder
        while package != output.parent:
            (package / "__init__.py").touch()
            package = package.parent


def _move_imports(path: Path) -> None:
    """protoc imports `trefoil.x`; the package lives below libs.rpc._generated."""
    text = path.read_text()
    text = re.sub(r"^from trefoil\.", f"from {PACKAGE}.trefoil.", text, flags=re.MULTILINE)
    text = re.sub(r"^import trefoil\.(\S+) as", rf"import {PACKAGE}.trefoil.\1 as", text, flags=re.MULTILINE)
    text = (
        re.sub(r"(?<![\w.\"/])trefoil\.(\w+)\.v1\.", rf"{PACKAGE}.trefoil.\1.v1.", text)
        if path.suffix == ".pyi"
        else text
    )
    path.write_text(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", type=Path, metavar="DIR", default=OUTPUT)
    generate(parser.parse_args().check)
