"""torchvision without its compiled part. Each claim needs an interpreter that has not imported it yet."""

import subprocess
import sys

import pytest


def _run(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout.strip()


def test_resnet_builds_whether_or_not_the_compiled_part_loads() -> None:
    code = (
        "from libs.models.registry import build_model\n"
        "print(type(build_model('resnet18', channels=1, classes=2, size=64, seed=0)).__name__)"
    )
    assert _run(code) == "ResNet"


def test_declaring_again_changes_nothing() -> None:
    code = (
        "from libs.models.torchvision_ops import declare_missing_ops\n"
        "declare_missing_ops(); import torchvision; print(declare_missing_ops())"
    )
    assert _run(code) == "()"


def test_operators_that_exist_are_left_alone() -> None:
    code = (
        "import torch\n"
        "real = torch.library.Library('torchvision', 'FRAGMENT')\n"
        "for name in ('nms', 'qnms'):\n"
        "    real.define(name + '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
        "from libs.models.torchvision_ops import declare_missing_ops\n"
        "print(declare_missing_ops())"
    )
    assert _run(code) == "()"


def test_a_declared_operator_cannot_be_called() -> None:
    code = (
        "import torch\n"
        "from libs.models.torchvision_ops import declare_missing_ops\n"
        "missing = declare_missing_ops()\n"
        "try:\n"
        "    torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5) if missing else None\n"
        "    print('loaded' if not missing else 'it ran')\n"
        "except NotImplementedError:\n"
        "    print('refused')"
    )
    if (answer := _run(code)) == "loaded":
        pytest.skip("the compiled part loads on this machine")
    assert answer == "refused"
