"""`trefoil predict` before and after the question itself."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from libs.cli.client.predictions import EvaluatorCost, Prediction
from libs.cli.main import main
from libs.cli.predict import predict
from libs.cli.who_saw_what import print_who_saw_what
from libs.mpc.schemes.masked.comparison import Comparison
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


def _prediction(*, dealer: int, images: int) -> Prediction:
    first, second = (
        EvaluatorCost(
            party,
            rounds=5,
            online_bytes=512,
            online_s=0,
            offline_bytes=0,
            offline_s=0,
            dealt_ahead=True,
            comparison=Comparison.NARROW,
        )
        for party in {0, 1, 2} - {dealer}
    )
    return Prediction(
        computation_id="c",
        logits=np.zeros((images, 2)),
        dealer=dealer,
        evaluators=(first, second),
        opened_s=0,
        prepared_s=0,
        masked_s=0,
        online_s=0,
        bytes_sent=0,
        bytes_received=0,
    )


def test_every_assignment_of_roles_is_told_with_its_questions(capsys: pytest.CaptureFixture[str]) -> None:
    print_who_saw_what([_prediction(dealer=dealer, images=4) for dealer in (0, 1, 2, 0)])
    told = capsys.readouterr().out
    for line in ("in question 1, 4", "in question 2", "in question 3", "8 images and the result"):
        assert line in told
    assert "sent 1.0 KiB in 10 rounds" in told


def test_one_question_needs_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    print_who_saw_what([_prediction(dealer=1, images=1)])
    told = capsys.readouterr().out
    assert "Who saw what" in told
    assert "in question" not in told
    assert "one image and the result" in told
