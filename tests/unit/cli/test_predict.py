"""`trefoil predict` before and after the question itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from libs.cli.main import main


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
