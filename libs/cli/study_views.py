"""One study, as JSON for machines and as tables for people."""

from __future__ import annotations

import json
from datetime import UTC
from typing import Any

from libs.cli.client.studies import DECISION_NAMES, PHASE_NAMES, STATE_NAMES
from libs.cli.output import human_bytes, plain, print_table, results
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2


def view(study: coordinator_pb2.Study) -> dict[str, Any]:
    """For machines."""
    return {
        "study_id": study.study_id,
        "title": study.title,
        "state": STATE_NAMES.get(study.state, "unknown"),
        "plan_hash": study.plan_hash,
        "training_plan": json.loads(study.training_plan or b"{}"),
        "rounds_done": study.rounds_done,
        "rounds_planned": study.rounds_planned,
        "latest_model_id": study.latest_model_id,
        "released_model_id": study.released_model_id,
        "failure": study.failure,
        "final_round": study.final_round or None,
        "stopped_because": study.stopped_because,
        "created_by": study.created_by,
        "created_at": study.created_at.ToDatetime(tzinfo=UTC),
        "members": [
            {
                "hospital": member.hospital_name,
                "dataset_id": member.dataset_id,
                "images": member.images or None,
                "decision": DECISION_NAMES.get(member.decision, "unknown"),
                "phase": PHASE_NAMES.get(member.phase, ""),
                "problem": member.problem,
            }
            for member in study.members
        ],
        "rounds": [
            {
                "number": number.number,
                "participants": list(number.participant_identities),
                "survivors": list(number.survivor_identities),
                "refused": list(number.refused_identities),
                "bytes_between_parties": number.bytes_between_parties,
            }
            for number in study.rounds
        ],
    }


def print_study(study: coordinator_pb2.Study) -> None:
    """For people."""
    console = results()
    state = STATE_NAMES.get(study.state, "unknown")
    console.print(f"[bold]{plain(study.title)}[/] ({plain(study.study_id)}) is {state}.")
    console.print(
        f"Plan {plain(study.plan_hash)}, {study.rounds_done} of {study.rounds_planned} rounds done."
    )
    if study.stopped_because:
        console.print(plain(study.stopped_because))
    if study.failure:
        console.print(f"[red]{plain(study.failure)}[/]")
    if study.released_model_id:
        console.print(f"Model: {plain(study.released_model_id)}")
    print_table(
        ["hospital", "data set", ">images", "decision", "problem"],
        [
            [
                m.hospital_name,
                m.dataset_id,
                m.images or "withheld",
                DECISION_NAMES.get(m.decision, "?"),
                m.problem,
            ]
            for m in study.members
        ],
        if_empty="No hospital takes part.",
    )
    print_table(
        [">round", ">hospitals", ">counted", ">refused", ">between parties"],
        [
            [
                r.number,
                len(r.participant_identities),
                len(r.survivor_identities),
                len(r.refused_identities),
                human_bytes(r.bytes_between_parties),
            ]
            for r in study.rounds
        ],
        if_empty="No round has begun.",
    )
