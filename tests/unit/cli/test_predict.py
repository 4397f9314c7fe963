"""`trefoil predict` before and after the question itself."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from libs.cli.main import main
from libs.cli.predict import predict
from services.coordinator.settings import CoordinatorSettings
from services.smpc_party.settings import PartySettings


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.png"
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(path)
    return path


def _told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str]:
    with pytest.raises(SystemExit) as stopped:
        main(["predict", *arguments])
    return stopped.value.code, capsys.readouterr().err


@pytest.mark.parametrize("content", [None, b"", b"no image"])
def test_a_bad_image_is_named_and_nothing_is_asked(
    good: Path,
    content: bytes | None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Path] = []
    monkeypatch.setattr("libs.cli.client.session.open_session", asked.append)
    bad = good.with_name("bad.png")
    if content is not None:
        bad.write_bytes(content)
    code, told = _told(capsys, str(good), str(bad), "--profile", "profile.toml")
    assert code == 2
    assert str(bad) in told
    assert str(good) not in told
    assert not asked


def test_an_image_that_claims_too_much_is_named(
    good: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.data.images.MAX_PIXELS", 100)
    code, told = _told(capsys, str(good), "--profile", "profile.toml")
    assert (code, str(good) in told) == (2, True)


def test_the_largest_batch_is_one_that_services_take_by_default() -> None:
    _, option = get_args(inspect.get_annotations(predict, eval_str=True)["batch"])
    for settings in (CoordinatorSettings, PartySettings):
        assert option.max == settings.model_fields["max_batch"].default
