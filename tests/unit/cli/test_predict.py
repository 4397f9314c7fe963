"""`trefoil predict` before and after the question itself."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.uid import generate_uid
from typer.testing import CliRunner

from libs.cli.client.predictions import EvaluatorCost, Prediction
from libs.cli.main import app, main
from libs.cli.predict import predict
from libs.cli.who_saw_what import print_who_saw_what
from libs.mpc.schemes.masked.comparison import Comparison
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from services.coordinator.settings import CoordinatorSettings
from services.smpc_party.settings import PartySettings
from tests.unit.data.dicom_files import chest, gradient, write


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


# ---------------------------------------------------------------- DICOM in and out


@pytest.fixture
def radiograph(tmp_path: Path) -> Path:
    elements = {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()}
    return write(chest(gradient(height=64, width=64), **elements), tmp_path / "x.dcm")


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[list[Path]]:
    """A model that says 88 % to every image, and what it was asked."""
    asked: list[list[Path]] = []

    async def answer(_: object, paths: list[Path], *__: object) -> object:
        from libs.cli.predict import _read

        for path in paths:
            assert _read(path, size=32).shape == (32, 32)
        asked.append(paths)
        prediction = replace(_prediction(dealer=0, images=1), logits=np.array([[0.0, 2.0]]))
        return coordinator_pb2.Model(model_id="study-1/release", plan_hash="ab" * 32), [prediction]

    monkeypatch.setattr("libs.cli.predict._ask", answer)
    return asked


@pytest.mark.parametrize("form", ["capture", "sr"])
def test_an_answer_about_a_dicom_image_is_written_into_its_study(
    radiograph: Path, answered: list[list[Path]], form: str
) -> None:
    out = radiograph.with_name("result.dcm")
    options = ["--dicom-out", str(out), "--dicom-form", form, "--profile", "p.toml", "--json"]
    result = CliRunner().invoke(app, ["predict", str(radiograph), *options])
    assert result.exit_code == 0, result.output
    [row] = json.loads(result.stdout)["images"]
    assert (row["probability"], row["label"], row["dicom"]) == (0.8808, "PNEUMONIA", str(out))
    made = dcmread(out)
    assert made.StudyInstanceUID == dcmread(radiograph).StudyInstanceUID
    assert made.Modality == {"capture": "OT", "sr": "SR"}[form]
    assert "0.8808" in str(made) or form == "capture"


def test_a_result_that_could_not_be_written_is_refused_before_anything_is_asked(
    good: Path, radiograph: Path, answered: list[list[Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    out = radiograph.with_name("result.dcm")
    for images, path, text in (
        ([radiograph, radiograph], out, "about one image"),
        ([good], out, "needs a DICOM image"),
        ([radiograph], radiograph, "cannot be written"),
        ([radiograph], radiograph.parent / "no" / "r.dcm", "cannot be written"),
    ):
        code, told = _told(capsys, *map(str, images), "--dicom-out", str(path), "--profile", "p.toml")
        assert (code, text in told) == (2, True)
    assert not answered
