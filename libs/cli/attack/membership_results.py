"""What membership attacks reached: table, ROC curves, page and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from libs.cli.attack.page import build_page, chart, heading, paragraph, table
from libs.cli.attack.showing import show_summary
from libs.cli.demo.results_folder import new_run_folder, write_results
from libs.cli.drawing import DASHES, SERIES, SOFT, STYLE, to_svg
from libs.cli.output import human_moment
from libs.data.imageset import ImageSet
from libs.fl.attacks.membership_trial import Attacked
from libs.fl.attacks.success import FALSE_POSITIVE_RATES, Interval, Success, most_true_positives
from libs.fl.presets import default_plan
from libs.fl.privacy_parameters import PrivacyParameters
from libs.fl.training_plan import LearningRateSchedule, TrainingPlan

COLUMNS = (
    "trained",
    "attack",
    ">test AUC",
    ">attack AUC (95 %)",
    *(f">TPR at {rate:.1%} FPR" for rate in FALSE_POSITIVE_RATES),
    ">balanced accuracy",
)
ATTACKS = {
    "loss": "loss",
    "calibrated": "calibrated loss",
    "lira_offline": "LiRA, offline",
    "lira_online": "LiRA, online",
}
_BOUND = "most possible"
_FEW_VALIDATED = 0.02
_LOWEST_RATE = 1e-3


def kinds_of_training(
    *,
    model: str,
    private_model: str,
    image_size: int,
    images: int,
    rounds: int | None,
    epsilons: tuple[float, ...],
    delta: float,
    seed: int,
    by_heart: bool,
) -> dict[str, TrainingPlan]:
    """The plans by what they are called, for models that learn from so many images."""
    preset = default_plan(model=model, image_size=image_size, images=images, rounds=rounds, seed=seed)
    # An image that a shadow only validated with would count as one that it knows; so there are few of them.
    preset = TrainingPlan.checked(preset.model_dump() | {"validation_fraction": _FEW_VALIDATED})
    kinds = {"in clear, by the preset": preset}
    if by_heart:
        kinds["in clear, by heart"] = TrainingPlan.checked(
            preset.model_dump()
            | {
                "augmentation": {},
                "weight_decay": 0.0,
                "local_epochs": 2,
                "lr_schedule": LearningRateSchedule.CONSTANT,
            }
        )
    for epsilon in epsilons:
        private = default_plan(
            model=private_model,
            image_size=image_size,
            images=images,
            rounds=rounds or 12,
            seed=seed,
            privacy=PrivacyParameters(target_epsilon=epsilon, delta=delta),
        )
        few = {"validation_fraction": _FEW_VALIDATED, "batch_size": min(private.batch_size, images // 4)}
        kinds[f"with noise, epsilon {epsilon:g}"] = TrainingPlan.checked(private.model_dump() | few)
    return kinds


def bound_of(attacked: Attacked, rate: float) -> float | None:
    """The largest true positive rate at this false positive rate that DP allows; None without noise."""
    privacy = attacked.plan.privacy
    if privacy is None:
        return None
    return most_true_positives(rate, epsilon=privacy.target_epsilon, delta=privacy.delta)


def rows(attacked: Mapping[str, Attacked]) -> list[list[str]]:
    """One for each attack on each kind of training, and one for each bound, in the order of COLUMNS."""
    lines = []
    for kind, one in attacked.items():
        for name, success in one.success.items():
            rates = [f"{success.tpr_at[rate].value:.2%}" for rate in FALSE_POSITIVE_RATES]
            lines.append(
                [
                    kind,
                    ATTACKS[name],
                    f"{one.test_auc:.3f}",
                    _with_interval(success.auc),
                    *rates,
                    f"{success.balanced_accuracy:.3f}",
                ]
            )
        if one.plan.privacy is not None:
            bounds = [f"{bound_of(one, rate):.2%}" for rate in FALSE_POSITIVE_RATES]
            lines.append([kind, _BOUND, "", "", *bounds, ""])
    return lines


def verdict(one: Attacked) -> str:
    """A plain sentence on the strongest attack."""
    name, best = max(one.success.items(), key=lambda item: item[1].auc.value)
    rate = FALSE_POSITIVE_RATES[0]
    caught = best.tpr_at[rate]
    if best.auc.low <= 0.5:
        return "No attack tells members from others better than chance, as far as so many images can show."
    return (
        f"{ATTACKS[name]} names {caught.value:.1%} of the members while it wrongly names {rate:.0%} of the "
        f"others; chance would be {rate:.0%}. AUC {_with_interval(best.auc)}, chance 0.5."
    )


def write(
    output: Path, *, source: str, images: ImageSet, attacked: Mapping[str, Attacked], seed: int, cpu_s: float
) -> Path:
    """Page and summary.json in a folder of their own, which is returned."""
    now = datetime.now(UTC)
    folder = new_run_folder(output, now)
    summary = {
        "attack": "membership",
        "data": source,
        "image_size": images.size,
        "images": len(images),
        "seed": seed,
        "kinds": {kind: _as_json(one) for kind, one in attacked.items()},
        "table": rows(attacked),
        "cpu_s": cpu_s,
        "created_at": now.isoformat(),
    }
    write_results(folder, summary=summary, page=_page(source, images, attacked, now))
    return folder


def show(folder: Path, *, as_json: bool) -> None:
    """The summary as a table, or as it is; and where the page lies."""
    show_summary(
        folder,
        as_json=as_json,
        columns=COLUMNS,
        title="Who was trained on",
        verdicts=lambda summary: ((kind, one["verdict"]) for kind, one in summary["kinds"].items()),
    )


def _as_json(one: Attacked) -> dict[str, Any]:
    return {
        "model": one.plan.model,
        "rounds": one.plan.rounds,
        "epsilon": one.plan.privacy.target_epsilon if one.plan.privacy else None,
        "delta": one.plan.privacy.delta if one.plan.privacy else None,
        "test_auc": one.test_auc,
        "train_auc": one.train_auc,
        "most_true_positives": {str(rate): bound_of(one, rate) for rate in FALSE_POSITIVE_RATES},
        "attacks": {
            name: {
                "auc": asdict(success.auc),
                "tpr_at_fpr": {str(rate): asdict(found) for rate, found in success.tpr_at.items()},
                "balanced_accuracy": success.balanced_accuracy,
                "others": success.others,
            }
            for name, success in one.success.items()
        },
        "verdict": verdict(one),
    }


def _with_interval(figure: Interval) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def _page(source: str, images: ImageSet, attacked: Mapping[str, Attacked], now: datetime) -> str:
    charts = []
    for kind, one in attacked.items():
        charts += [
            heading(kind.capitalize()),
            paragraph(verdict(one)),
            chart(_curves(kind, one), caption="True against false positive rate; the gray line is chance."),
        ]
    return build_page(
        title="Who was trained on",
        lead=f"Models learnt from random halves of {len(images)} X-rays ({source}, {images.size} pixels a "
        "side). The attacker holds a model, an X-ray and its diagnosis, and says whether the model was "
        "trained on it.",
        created_at=human_moment(now),
        command="trefoil attack membership",
        body=[
            table(
                COLUMNS,
                rows(attacked),
                caption="Over all models of a kind. TPR at FPR: the part of members named while so many "
                "others are wrongly named. Intervals from resampled patients.",
            ),
            *charts,
            heading("What this means, and what it does not"),
            paragraph(
                "Whoever is recognised as a member is known to have been X-rayed at one of the study's "
                "hospitals, and if members were chosen for their illness, to have had it. The attacker "
                "needs the X-ray itself. Weak attacks are no proof that there is no stronger one; the "
                "bound beside an epsilon is. It holds for one image, not for all images of a patient, and "
                "against attackers who know everything else."
            ),
        ],
    )


def _curves(kind: str, one: Attacked) -> str:
    """ROC in log-log scale, where the confident guesses are (Carlini et al., 2022)."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 4.6), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([_LOWEST_RATE, 1], [_LOWEST_RATE, 1], color=SOFT, linewidth=1)
        for (name, success), colour, dash in zip(one.success.items(), SERIES, DASHES, strict=True):
            axes.plot(*_visible(success), dash, color=colour, label=ATTACKS[name], linewidth=2)
        if one.plan.privacy is not None:
            rates = np.geomspace(_LOWEST_RATE, 1, 200)
            most = [bound_of(one, float(rate)) or 0.0 for rate in rates]
            axes.plot(rates, most, color=SOFT, linewidth=2, label=_BOUND)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(_LOWEST_RATE, 1)
        axes.set_ylim(_LOWEST_RATE, 1)
        axes.set_xlabel("false positive rate")
        axes.set_ylabel("true positive rate")
        axes.set_aspect("equal")
        axes.legend(loc="lower right")
        return to_svg(figure, f"ROC of {len(one.success)} attacks on models trained {kind}. {verdict(one)}")


def _visible(success: Success) -> tuple[Any, Any]:
    """The curve without its zeros, which a logarithm has no place for."""
    false, true = success.curve
    shown = (false > 0) & (true > 0)
    return false[shown], true[shown]
