"""Studies as rows, and back. The only place that knows both."""

from __future__ import annotations

from datetime import datetime
from fractions import Fraction
from typing import Any

from libs.mpc.ring import Ring
from services.coordinator.adapters.tables import MemberRow, RoundRow, StudyRow
from services.coordinator.domain import (
    Calibration,
    Calibrator,
    CompiledPlan,
    Member,
    Participant,
    Round,
    SignedText,
    Study,
)
from services.coordinator.states import Decision, RoundKind, RoundState, StudyState, TaskStatus


def study_of(row: StudyRow) -> Study:
    """The study that the rows hold."""
    return Study(
        study_id=row.study_id,
        request_id=row.request_id,
        title=row.title,
        plan_json=row.plan_json,
        plan_hash=row.plan_hash,
        rounds_planned=row.rounds_planned,
        quorum=row.quorum,
        parameters=row.parameters,
        creator=row.creator,
        created_by=row.created_by,
        created_at=row.created_at,
        members=tuple(_member_of(member) for member in row.members),
        state=StudyState(row.state),
        rounds=tuple(_round_of(opened) for opened in row.rounds),
        calibration=None if row.calibration is None else _calibration_of(row.calibration),
        compiled=None if row.compiled is None else _compiled_of(row.compiled, row.compiled_json or b""),
        failure=row.failure,
        statement=None
        if row.statement is None
        else SignedText(row.statement, row.statement_signature or b"", row.statement_chain or b""),
    )


def write_study(row: StudyRow, study: Study) -> None:
    """Make the rows hold the study. Only what differs is written: the session compares."""
    row.study_id, row.request_id, row.title = study.study_id, study.request_id, study.title
    row.plan_json, row.plan_hash = study.plan_json, study.plan_hash
    row.rounds_planned, row.quorum, row.parameters = study.rounds_planned, study.quorum, study.parameters
    row.creator, row.created_by, row.created_at = study.creator, study.created_by, study.created_at
    row.state, row.failure = study.state.value, study.failure
    row.calibration = None if study.calibration is None else _calibration_json(study.calibration)
    row.compiled = None if study.compiled is None else _compiled_json(study.compiled)
    row.compiled_json = None if study.compiled is None else study.compiled.json
    if study.statement is not None:
        row.statement = study.statement.payload
        row.statement_signature = study.statement.signature
        row.statement_chain = study.statement.certificate_chain
    members = {member.hospital: member for member in row.members}
    for position, member in enumerate(study.members):
        kept = members.get(member.hospital) or MemberRow(hospital=member.hospital)
        _write_member(kept, member, position)
        if member.hospital not in members:
            row.members.append(kept)
    rounds = {opened.number: opened for opened in row.rounds}
    for opened in study.rounds:
        kept_round = rounds.get(opened.number) or RoundRow(number=opened.number)
        _write_round(kept_round, opened)
        if opened.number not in rounds:
            row.rounds.append(kept_round)


def _member_of(row: MemberRow) -> Member:
    return Member(
        hospital=row.hospital,
        hospital_name=row.hospital_name,
        dataset_id=row.dataset_id,
        dataset_name=row.dataset_name,
        images=row.images,
        decision=Decision(row.decision),
        problem=row.problem,
        end_told=row.end_told,
    )


def _write_member(row: MemberRow, member: Member, position: int) -> None:
    row.position, row.hospital_name, row.images = position, member.hospital_name, member.images
    row.dataset_id, row.dataset_name = member.dataset_id, member.dataset_name
    row.decision, row.problem, row.end_told = member.decision.value, member.problem, member.end_told


def _round_of(row: RoundRow) -> Round:
    return Round(
        number=row.number,
        kind=RoundKind(row.kind),
        participants=tuple(
            Participant(
                p["hospital"], Fraction(p["weight"]), TaskStatus(p["status"]), int(p.get("best_round", "0"))
            )
            for p in row.participants
        ),
        opened_at=row.opened_at,
        deadline=row.deadline,
        attempt=row.attempt,
        state=RoundState(row.state),
        survivors=tuple(row.survivors),
        closed_at=row.closed_at,
        bytes_between_parties=row.bytes_between_parties,
    )


def _write_round(row: RoundRow, opened: Round) -> None:
    row.kind, row.attempt, row.state = opened.kind.value, opened.attempt, opened.state.value
    row.participants = [
        {
            "hospital": p.hospital,
            "weight": str(p.weight),
            "status": p.status.value,
            "best_round": str(p.best_round),
        }
        for p in opened.participants
    ]
    row.survivors, row.bytes_between_parties = list(opened.survivors), opened.bytes_between_parties
    row.opened_at, row.deadline, row.closed_at = opened.opened_at, opened.deadline, opened.closed_at


def _calibration_json(calibration: Calibration) -> dict[str, Any]:
    calibrators = [
        {
            "hospital": c.hospital,
            "status": c.status.value,
            "bounds": None if c.bounds is None else dict(c.bounds),
        }
        for c in calibration.calibrators
    ]
    return {"deadline": calibration.deadline.isoformat(), "calibrators": calibrators}


def _calibration_of(data: dict[str, Any]) -> Calibration:
    calibrators = tuple(
        Calibrator(c["hospital"], TaskStatus(c["status"]), c["bounds"]) for c in data["calibrators"]
    )
    return Calibration(datetime.fromisoformat(data["deadline"]), calibrators)


def _compiled_json(compiled: CompiledPlan) -> dict[str, Any]:
    return {
        "hash": compiled.hash,
        "ring": compiled.ring.bits,
        "parameter_length": compiled.parameter_length,
        "bounds": dict(compiled.bounds),
    }


def _compiled_of(data: dict[str, Any], json: bytes) -> CompiledPlan:
    return CompiledPlan(json, data["hash"], Ring(data["ring"]), data["parameter_length"], data["bounds"])
