"""What a training plan costs a hospital in privacy, before and while it trains.

Everything follows from the plan and the number of images in the hospital's data set, without a look at an
image. Whoever knows the cost of a known plan knows that number: the cost leaves the hospital only where its
owner discloses exact counts.
"""

from __future__ import annotations

from libs.core.errors import FailedPrecondition, InvalidInput
from libs.dp.accountant import epsilon_of, noise_multiplier_for, sum_noise_multiplier_for
from libs.dp.events import DiscreteGaussian, Event, NoPrivacy, PostProcessing, SampledGaussian
from libs.fl.privacy_parameters import PrivacyParameters, PrivacyUnit
from libs.fl.training_plan import Augmentation, TrainingPlan


def steps_per_epoch(plan: TrainingPlan, *, records: int) -> int:
    """Noisy steps that count as one pass over so many images."""
    _require_records(records)
    return -(-records // plan.batch_size)


def sample_rate(plan: TrainingPlan, *, records: int) -> float:
    """With what probability each training image takes part in a step."""
    _require_records(records)
    return min(1.0, plan.batch_size / records)


def noise_multiplier(plan: TrainingPlan, *, records: int) -> float:
    """The plan's own, or the least that keeps all rounds of a hospital of this size within the target.

    Raises InvalidInput for a plan without privacy, and where no reasonable noise reaches the target.
    """
    privacy = privacy_of(plan)
    if privacy.unit is PrivacyUnit.HOSPITAL:
        return sum_noise_multiplier(plan)
    if privacy.noise_multiplier is not None:
        return privacy.noise_multiplier
    return noise_multiplier_for(
        target_epsilon=privacy.target_epsilon,
        delta=privacy.delta,
        sample_rate=sample_rate(plan, records=records),
        steps=plan.rounds * _steps_per_run(plan, records),
        accountant=privacy.accountant,
    )


def sum_noise_multiplier(plan: TrainingPlan) -> float:
    """The same where the parties add noise to the sum: it does not depend on any hospital's images."""
    privacy = privacy_of(plan)
    if privacy.noise_multiplier is not None:
        return privacy.noise_multiplier
    return sum_noise_multiplier_for(
        target_epsilon=privacy.target_epsilon, delta=privacy.delta, releases=plan.rounds
    )


def planned_event(plan: TrainingPlan, *, records: int, runs: int | None = None) -> Event:
    """What `runs` runs of a round's local training are to an accountant; all rounds of the plan without it.

    Without privacy, every contribution tells something that no noise covers: NoPrivacy.
    """
    runs = plan.rounds if runs is None else runs
    if runs < 0:
        raise InvalidInput("A study is trained a number of times from 0 up.")
    if runs == 0:
        return PostProcessing()
    if plan.privacy is None:
        return NoPrivacy()
    if plan.privacy.unit is PrivacyUnit.HOSPITAL:
        return DiscreteGaussian(noise_multiplier=sum_noise_multiplier(plan), releases=runs)
    return SampledGaussian(
        noise_multiplier=noise_multiplier(plan, records=records),
        sample_rate=sample_rate(plan, records=records),
        steps=runs * _steps_per_run(plan, records),
    )


def planned_epsilon(plan: TrainingPlan, *, records: int, runs: int | None = None) -> float:
    """The epsilon of `planned_event` at the plan's delta; infinity without privacy."""
    event = planned_event(plan, records=records, runs=runs)
    if plan.privacy is None:
        return epsilon_of(event, delta=0.0)
    return epsilon_of(event, delta=plan.privacy.delta, accountant=plan.privacy.accountant)


def require_within_target(plan: TrainingPlan, *, records: int, runs: int) -> None:
    """Raises FailedPrecondition when so many runs would cost more than the plan's target."""
    target = privacy_of(plan).target_epsilon
    if planned_epsilon(plan, records=records, runs=runs) > target:
        raise FailedPrecondition(
            f"Training once more would cost this hospital more than the plan's epsilon of {target:g}, so it "
            "stops here. Propose a plan with more noise, fewer rounds or a larger target_epsilon."
        )


def _steps_per_run(plan: TrainingPlan, records: int) -> int:
    return plan.local_epochs * steps_per_epoch(plan, records=records)


def views_of(plan: TrainingPlan) -> int:
    """How many copies of an image a step looks at. Copies that nothing changes would be work for nothing."""
    return privacy_of(plan).views if plan.augmentation != Augmentation() else 1


def privacy_of(plan: TrainingPlan) -> PrivacyParameters:
    """The plan's privacy parameters. Raises InvalidInput where it has none."""
    if plan.privacy is None:
        raise InvalidInput("This plan trains without noise. Give it privacy parameters first.")
    return plan.privacy


def _require_records(records: int) -> None:
    if records < 1:
        raise InvalidInput("A hospital trains on at least one image.")
