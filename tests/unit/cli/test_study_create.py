"""`trefoil study create`: a plan that cannot be is refused before anybody is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from libs.cli.main import main
from libs.cli.study_plan import PlanChoices
from libs.fl.presets import default_plan
from libs.fl.privacy_parameters import PrivacyParameters
from libs.fl.training_plan import Download, ModelAccess

TAGS = ["--tag", "x-ray"]


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    path.write_bytes(default_plan(model="small_cnn", image_size=28, images=100).canonical_json())
    return path


def _refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is told, without a profile ever being read."""
    with pytest.raises(SystemExit) as stopped:
        main(["study", "create", *TAGS, *arguments, "--profile", "nowhere.toml"])
    told = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "nowhere.toml" not in told
    return told


@pytest.mark.parametrize(
    "option",
    [
        "--model=resnet18",
        "--image-size=64",
        "--rounds=3",
        "--seed=0",
        "--epsilon=8",
        "--delta=1e-5",
        "--max-grad-norm=1",
        "--ask=spiffe://trefoil.local/client/clinic",
        "--ask-anyone",
        "--no-download",
    ],
)
def test_an_option_that_the_plan_decides_is_refused(
    plan: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"leave {option.partition('=')[0]} out" in _refused(capsys, "--plan", str(plan), option)


@pytest.mark.parametrize(
    ("arguments", "telling"),
    [
        (["--rounds=5000"], "rounds"),
        ([f"--seed={2**32}"], "seed"),
        (["--tag", "t" * 100], "dataset_tags"),
        (["--model=nonsense"], "small_cnn"),
        (["--model=resnet18", "--image-size=16"], "32 pixels"),
        (["--epsilon=0"], "target_epsilon"),
        (["--epsilon=8", "--delta=2"], "delta"),
        (["--delta=1e-5"], "--epsilon"),
        (["--max-grad-norm=1"], "--epsilon"),
        (["--epsilon=8", "--model=small_cnn"], "small_cnn_private"),
        (["--ask=clinic"], "like spiffe://"),
        (["--ask-anyone", "--ask=spiffe://trefoil.local/client/clinic"], "leave ask empty"),
    ],
)
def test_choices_are_checked_first(
    arguments: list[str], telling: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert telling in _refused(capsys, *arguments)


def test_options_become_the_plan() -> None:
    clinic = "spiffe://trefoil.local/client/clinic"
    choices = PlanChoices(epsilon=4.0, ask=(clinic,), no_download=True)
    made = choices.default_plan(["x-ray"])(1000)
    assert made.model == "small_cnn_private"
    assert made.privacy == PrivacyParameters(target_epsilon=4.0, delta=1e-5)
    assert made.model_access == ModelAccess(download=Download.NOBODY, ask=(clinic,))
    bare = PlanChoices().default_plan([])(1000)
    assert (bare.model, bare.privacy, bare.model_access) == ("small_cnn", None, ModelAccess())


def test_a_plan_file_is_read_first(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = plan.with_name("missing.json")
    assert str(missing) in _refused(capsys, "--plan", str(missing))
    plan.write_text('{"model": "small_cnn"}')
    assert "image_size" in _refused(capsys, "--plan", str(plan))


def test_a_right_plan_gets_as_far_as_the_profile(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["study", "create", *TAGS, "--plan", str(plan), "--profile", "nowhere.toml"])
    assert "nowhere.toml" in capsys.readouterr().err
