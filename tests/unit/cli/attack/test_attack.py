"""`trefoil attack`: what it writes, and what its sentences say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from libs.cli.attack.contributions_results import verdict as contributions_verdict
from libs.cli.attack.inversion_results import verdict
from libs.cli.attack.page import build_page, paragraph, strip, table
from libs.cli.epsilons import parse_epsilons
from libs.cli.main import main
from libs.core.errors import InvalidInput
from libs.fl.attacks.contributions import ATTACKS
from libs.fl.attacks.contributions_trial import Pair, Result
from libs.fl.attacks.inversion_trial import Outcome, Sees
from libs.fl.attacks.likeness import Likeness


def outcome(sees: Sees, *, psnr_db: float, rank: int) -> Outcome:
    return Outcome(
        sees,
        "small_cnn",
        None,
        np.zeros((1, 8, 8), np.float32),
        (Likeness(0, psnr_db, 0.5, rank),),
        None,
        None,
    )


def test_an_inversion_writes_page_pictures_and_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(
        [
            *[
                "attack",
                "inversion",
                "--images",
                "1",
                "--hospitals",
                "2",
                "--iterations",
                "2",
                "--size",
                "16",
                "--json",
                "--epsilons=",
            ],
            "--output",
            str(tmp_path),
        ]
    )
    printed = json.loads(capsys.readouterr().out)
    folder = tmp_path / "latest"
    assert printed == json.loads((folder / "summary.json").read_text("utf-8"))
    assert [one["sees"] for one in printed["outcomes"]] == ["nothing", "clear", "share", "sum"]
    assert (folder / "index.html").read_text("utf-8").count("<img ") == 5  # the original and four outcomes
    with Image.open(folder / "pictures.png") as picture:
        assert picture.height > 4 * picture.width


def test_a_sentence_says_failed_only_where_nothing_shows() -> None:
    guess = outcome(Sees.NOTHING, psnr_db=18, rank=100)
    failed = verdict(outcome(Sees.SHARE, psnr_db=13, rank=90), guess=guess, people=201)
    assert "failed" in failed
    for blurred in (outcome(Sees.SUM, psnr_db=17, rank=5), outcome(Sees.CLEAR, psnr_db=17, rank=1)):
        assert "failed" not in verdict(blurred, guess=guess, people=201)


def test_a_miss_of_the_tolerance_is_said() -> None:
    def result(area: float, refused: int) -> Result:
        return Result("sign flip", True, area, None, 6, refused, 0)

    clean = Pair(None, result(0.95, 0), result(0.95, 0))
    for refused in (0, 5):
        missed = Pair(ATTACKS["sign flip"], result(0.92, 0), result(0.92, refused))
        assert "NOT within" in contributions_verdict(missed, clean)
        held = Pair(ATTACKS["sign flip"], result(0.94, 0), result(0.94, refused))
        assert "NOT within" not in contributions_verdict(held, clean)


def test_everything_on_a_page_is_escaped() -> None:
    evil = "<script>"
    body = [
        paragraph(evil),
        table([evil], [[evil, evil]], caption=evil),
        strip(evil, [np.zeros((8, 8), np.uint8)], [evil], remark=evil),
    ]
    page = build_page(title=evil, lead=evil, created_at=evil, command=evil, body=body)
    assert evil not in page


def test_epsilons_are_numbers_or_refused() -> None:
    assert parse_epsilons("1,8") == (1.0, 8.0)
    assert parse_epsilons("") == ()
    with pytest.raises(InvalidInput, match="1,2,4,8"):
        parse_epsilons("one")
