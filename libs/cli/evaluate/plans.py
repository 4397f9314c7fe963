"""The training plans of an evaluation."""

from __future__ import annotations

from libs.cli.demo.material import TAGS
from libs.cli.evaluate.options import EvaluateOptions
from libs.fl.presets import default_plan
from libs.fl.privacy_parameters import PrivacyParameters
from libs.fl.training_plan import TrainingPlan

_DEADLINE_S = 86_400.0
"""All hospitals share this machine, and large networks take their time on it."""


def plan_for(
    options: EvaluateOptions, *, images: int, seed: int, epsilon: float | None = None
) -> TrainingPlan:
    """The preset for these images, with an epsilon the private one. Raises InvalidInput."""
    private = epsilon is not None
    privacy = None if epsilon is None else PrivacyParameters(target_epsilon=epsilon, delta=options.delta)
    plan = default_plan(
        model=options.private_model if private else options.model_name,
        image_size=options.image_size,
        images=images,
        rounds=options.rounds_of(private=private),
        seed=seed,
        dataset_tags=TAGS,
        privacy=privacy,
    )
    return TrainingPlan.checked({**plan.model_dump(), "round_deadline_s": _DEADLINE_S})
