"""Studies in any state, made by the transitions that lead there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from libs.mpc.ring import Ring
from services.coordinator.domain import CompiledPlan, Member, Study
from services.coordinator.rounds import strategy_of
from services.coordinator.states import RoundEvent, RoundKind, StudyEvent
from tests.fakes.federation import training_plan

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=10)
A, B, C = (f"spiffe://trefoil.local/hospital/{name}" for name in ("alpha", "beta", "gamma"))
ALL = frozenset({A, B, C})
COMPILED = CompiledPlan(b"{}", "c" * 64, Ring.RING_64, 7, {"conv": 3, "relu": -1})


def created(study_id: str = "study-1", *, rounds: int = 1) -> Study:
    """Three hospitals of 1, 2 and 3 images, none of which has decided."""
    plan = training_plan(rounds=rounds)
    members = tuple(
        Member(hospital, name, f"{name}/xrays", "xrays", images)
        for hospital, name, images in ((A, "alpha", 1), (B, "beta", 2), (C, "gamma", 3))
    )
    return Study(
        study_id=study_id,
        request_id="request-1",
        title="Pneumonia",
        plan_json=plan.canonical_json(),
        plan_hash=plan.hash,
        rounds_planned=rounds,
        quorum=2,
        parameters=10,
        creator="spiffe://trefoil.local/client/dana",
        created_by="dana",
        created_at=NOW,
        members=members,
    )


def training(*, rounds: int = 1) -> Study:
    """Approved by all and started; no round yet."""
    study = created(rounds=rounds).after(StudyEvent.STARTED)
    for hospital in (A, B, C):
        study = study.with_decision(hospital, approved=True, reason="")
    return study.after(StudyEvent.APPROVED)


def opening(study: Study, kind: RoundKind = RoundKind.TRAIN) -> Study:
    """The next round, with everybody, not yet announced."""
    return study.with_round(kind, ALL, strategy=strategy_of(study), opened_at=NOW, deadline=LATER)


def in_round(study: Study, kind: RoundKind = RoundKind.TRAIN) -> Study:
    """The next round, open."""
    return opening(study, kind).with_round_opened(opened_at=NOW, deadline=LATER)


def after_round(study: Study, kind: RoundKind = RoundKind.TRAIN) -> Study:
    """The next round, completed by everybody."""
    closing = in_round(study, kind).with_round_event(RoundEvent.OVER)
    return closing.with_aggregate((A, B, C), closed_at=LATER, bytes_between_parties=3)


def calibrating() -> Study:
    """Everybody is asked for bounds."""
    return after_round(training()).with_calibration((A, B, C), deadline=LATER)


def released() -> Study:
    """The whole way."""
    study = after_round(calibrating().with_compiled(COMPILED), RoundKind.RELEASE)
    return study.after(StudyEvent.RELEASED)
