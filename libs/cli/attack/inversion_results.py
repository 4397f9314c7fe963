"""What an inversion attack found: table, pictures, page and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

from libs.cli.attack.page import build_page, enlarged, heading, paragraph, strip, table, to_pixels
from libs.cli.attack.showing import show_summary
from libs.cli.demo.results_folder import new_run_folder, write_results
from libs.cli.output import human_moment
from libs.fl.attacks.inversion_trial import Cast, Outcome, Sees, Trial

COLUMNS = ("what the attacker sees", "model", ">PSNR dB", ">SSIM", ">recognised")

_NAMES = {
    Sees.NOTHING: "nothing: the average X-ray",
    Sees.CLEAR: "the update in clear",
    Sees.SHARE: "one party's share",
    Sees.SUM: "the sum over all hospitals",
    Sees.CLEAR_PRIVATE_MODEL: "the update in clear, without noise",
    Sees.NOISE: "the update with noise",
}
_MEANS = {
    Sees.NOTHING: "No attack at all: whoever guesses the average of other patients' X-rays gets this near. "
    "Only what is clearly nearer tells something about these patients.",
    Sees.CLEAR: "What a server sees that collects updates without secure aggregation.",
    Sees.SHARE: "What one of our three parties sees: uniformly random numbers, whatever the images were.",
    Sees.SUM: "What hospitals and readers of the study open. A sum hides whose an image is, and hides it "
    "among all that were trained on; with as few as here it may still give some away.",
    Sees.CLEAR_PRIVATE_MODEL: "The architecture that trains with noise, still without noise: what the rows "
    "with noise compare with.",
    Sees.NOISE: "What a hospital sends that trains with DP-SGD. Epsilon is the plan's, for the whole study.",
}

_NEAR = 8
"""Originals in the first eighth of all X-rays, on average, are not there by chance."""


def name_of(outcome: Outcome) -> str:
    """What was attacked, in words."""
    if outcome.epsilon is None:
        return _NAMES[outcome.sees]
    return f"{_NAMES[outcome.sees]}, epsilon {outcome.epsilon:g}"


def rows(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """One for each of `outcomes`, in the order of COLUMNS."""
    return [
        [
            name_of(one),
            one.model if one.sees is not Sees.NOTHING else "",
            f"{one.psnr_db:.1f}",
            f"{one.ssim:.2f}",
            f"{one.recognised} of {len(one.likeness)}",
        ]
        for one in outcomes
    ]


def verdict(outcome: Outcome, *, guess: Outcome, people: int) -> str:
    """A plain sentence: did the attack get nearer than a guess, and would one know the patient?"""
    gained = outcome.psnr_db - guess.psnr_db
    if outcome.sees is Sees.NOTHING:
        return f"{outcome.psnr_db:.1f} dB."
    places = [image.rank for image in outcome.likeness]
    if outcome.recognised == 0 and gained < 1 and sum(places) / len(places) > people / _NEAR:
        return f"The attack failed: {outcome.psnr_db:.1f} dB, where guessing has {guess.psnr_db:.1f} dB."
    known = f"{outcome.recognised} of {len(outcome.likeness)} can be picked out among {people} X-rays"
    if outcome.recognised == 0:
        known += f", but something shows (places {', '.join(map(str, places))})"
    nearer = f"{abs(gained):.1f} dB {'nearer' if gained >= 0 else 'further off'} than guessing"
    return f"{known}; {outcome.psnr_db:.1f} dB, {nearer}."


def write(
    output: Path, *, source: str, who: Cast, trial: Trial, outcomes: Sequence[Outcome], cpu_s: float
) -> Path:
    """Page, pictures and summary.json in a folder of their own, which is returned."""
    now = datetime.now(UTC)
    folder = new_run_folder(output, now)
    _picture(who, outcomes).save(folder / "pictures.png", optimize=True)
    summary = _summary(source, who, trial, outcomes) | {"cpu_s": cpu_s, "created_at": now.isoformat()}
    write_results(folder, summary=summary, page=_page(source, who, trial, outcomes, now))
    return folder


def show(folder: Path, *, as_json: bool) -> None:
    """The summary as a table, or as it is; and where the page lies."""
    show_summary(
        folder,
        as_json=as_json,
        columns=COLUMNS,
        title="X-rays from an update",
        verdicts=lambda summary: ((one["name"], one["verdict"]) for one in summary["outcomes"]),
    )


def _summary(source: str, who: Cast, trial: Trial, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "attack": "inversion",
        "data": source,
        "image_size": who.others.size,
        "trial": asdict(trial),
        "compared_with": len(who.others),
        "outcomes": [
            {
                "sees": one.sees.value,
                "name": name_of(one),
                "model": one.model,
                "epsilon": one.epsilon,
                "psnr_db": one.psnr_db,
                "ssim": one.ssim,
                "recognised": one.recognised,
                "images": [asdict(image) for image in one.likeness],
                "labels_right": one.labels_right,
                "mismatch": one.mismatch,
                "verdict": verdict(one, guess=outcomes[0], people=len(who.others) + 1),
            }
            for one in outcomes
        ],
        "table": rows(outcomes),
    }


def _page(source: str, who: Cast, trial: Trial, outcomes: Sequence[Outcome], now: datetime) -> str:
    people = len(who.others) + 1
    strips = [
        strip(
            "The hospital's X-rays",
            list(who.victim.images),
            ["original"] * trial.images,
            remark="What must not leave.",
        )
    ]
    for one in outcomes:
        strips.append(
            strip(
                name_of(one),
                [to_pixels(image) for image in one.reconstructions],
                [f"{image.psnr_db:.1f} dB, place {image.rank}" for image in one.likeness],
                remark=f"{_MEANS[one.sees]} {verdict(one, guess=outcomes[0], people=people)}",
            )
        )
    return build_page(
        title="X-rays from an update",
        lead=f"A hospital trains on {trial.images} X-rays ({source}, {who.others.size} pixels a side), "
        f"{trial.steps.count} step(s) of SGD, and sends what changed. An attacker who knows the weights "
        "before looks for X-rays that would have changed them in the same way.",
        created_at=human_moment(now),
        command="trefoil attack inversion",
        body=[
            table(
                COLUMNS,
                rows(outcomes),
                caption="Means over the images. Recognised: what came out is nearer to the original than "
                f"to {people - 1} X-rays of other patients, brightness and contrast aside.",
            ),
            heading("Pictures"),
            *strips,
            heading("What this does not show"),
            paragraph(
                "That no better attack exists: a failure here is a failure of this attack. What carries "
                "the promise is that a share is uniformly random, and that DP-SGD has an epsilon; the "
                "pictures show what that means. An update over many images and steps is much harder to "
                "read than one over these few."
            ),
        ],
    )


def _picture(who: Cast, outcomes: Sequence[Outcome]) -> Image.Image:
    """All in one: the originals on top, then a row for each outcome, in the page's order."""
    lines = [list(who.victim.images)]
    lines += [[to_pixels(image) for image in one.reconstructions] for one in outcomes]
    tiles = [[enlarged(image) for image in line] for line in lines]
    step = tiles[0][0].width + 8
    picture = Image.new("L", (len(tiles[0]) * step - 8, len(tiles) * step - 8), 255)
    for y, line in enumerate(tiles):
        for x, tile in enumerate(line):
            picture.paste(tile, (x * step, y * step))
    return picture
