"""`trefoil request create` and `status`: what scientists and clinicians ask hospitals for."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from libs.cli.options import JsonOption, ProfileOption, RequestIdOption

if TYPE_CHECKING:
    from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2


def create(
    profile: ProfileOption,
    dataset: Annotated[str, typer.Option(help="The data set (hospital/name).")],
    reason: Annotated[str, typer.Option(help="What it is for: the owner reads this first.")],
    purpose: Annotated[str, typer.Option(help="training or prediction.")] = "training",
    plan: Annotated[Path | None, typer.Option(help="Training plan (JSON), for training.")] = None,
    model: Annotated[str, typer.Option(help="Model to ask, for prediction.")] = "",
    epsilon: Annotated[
        str, typer.Option(help="Privacy that may be spent, in decimals; inf: without differential privacy.")
    ] = "inf",
    delta: Annotated[str, typer.Option(help="The delta that goes with it, for example 0.00001.")] = "0",
    uses: Annotated[int, typer.Option(min=1, help="Studies, or predictions.")] = 1,
    request_id: RequestIdOption = "",
    as_json: JsonOption = False,
) -> None:
    """Ask the owner of a data set for access. The request is signed with your key."""
    from libs.cli.client.access import request_access
    from libs.cli.client.session import open_session, run
    from libs.cli.output import plain, print_json, results
    from libs.core.errors import InvalidInput
    from libs.fl.training_plan import TrainingPlan

    wanted = {"training": (True, False), "prediction": (False, True)}.get(purpose)
    if wanted is None or wanted != (plan is not None, bool(model)):
        raise InvalidInput("Ask with --purpose training --plan FILE, or --purpose prediction --model MODEL.")
    agreed = None if plan is None else TrainingPlan.from_json(plan.read_bytes())

    async def ask() -> coordinator_pb2.AccessRequest:
        async with open_session(profile) as session:
            return await request_access(
                session,
                dataset_id=dataset,
                reason=reason,
                plan=agreed,
                model_id=model,
                epsilon=epsilon,
                delta=delta,
                uses=uses,
                request_id=request_id,
            )

    asked = run(ask())
    if as_json:
        print_json(view(asked))
        return
    results().print(
        f"Asked for [bold]{plain(asked.dataset_id)}[/] as {plain(asked.request_id)}. "
        "Its owner decides; see: trefoil request status"
    )


def status(
    profile: ProfileOption,
    request: Annotated[str, typer.Argument(metavar="[REQUEST]", help="Only this request.")] = "",
    as_json: JsonOption = False,
) -> None:
    """What became of your requests; an operator sees everybody's."""
    from libs.cli.client.access import STATE_NAMES, list_access_requests
    from libs.cli.client.session import open_session, run
    from libs.cli.output import human_moment, print_json, print_table
    from libs.core.errors import NotFound

    async def ask() -> list[coordinator_pb2.AccessRequest]:
        async with open_session(profile) as session:
            return await list_access_requests(session)

    requests = [asked for asked in run(ask()) if request in {"", asked.request_id}]
    if request and not requests:
        raise NotFound(f"You have no request {request}. See all: trefoil request status")
    if as_json:
        print_json([view(asked) for asked in requests])
        return
    print_table(
        ["request", "data set", "purpose", "by", "state", "granted", ">uses", "until", "reason"],
        [
            [
                asked.request_id,
                asked.dataset_id,
                asked.purpose,
                asked.requested_by,
                STATE_NAMES.get(asked.decision.state, "unknown")
                + ("" if asked.delivered else " (not delivered yet)"),
                asked.decision.granted.epsilon and f"epsilon {asked.decision.granted.epsilon}",
                asked.decision.uses or "",
                human_moment(until) if (until := _until(asked.decision)) else "",
                asked.decision.reason,
            ]
            for asked in requests
        ],
        if_empty="Nothing was asked for. Ask: trefoil request create --dataset HOSPITAL/NAME --plan FILE",
    )


def view(asked: coordinator_pb2.AccessRequest) -> dict[str, Any]:
    """For machines."""
    from libs.cli.client.access import STATE_NAMES

    decision = asked.decision
    return {
        "request_id": asked.request_id,
        "dataset_id": asked.dataset_id,
        "purpose": asked.purpose,
        "plan_hash": asked.plan_hash,
        "model_id": asked.model_id,
        "requested_by": asked.requested_by,
        "requested_at": asked.requested_at.ToDatetime(tzinfo=UTC),
        "asked": {"epsilon": asked.asked.epsilon, "delta": asked.asked.delta, "uses": asked.uses_asked},
        "delivered": asked.delivered,
        "state": STATE_NAMES.get(decision.state, "unknown"),
        "reason": decision.reason,
        "granted": {
            "epsilon": decision.granted.epsilon,
            "delta": decision.granted.delta,
            "uses": decision.uses,
        },
        "expires_at": _until(decision),
    }


def _until(decision: coordinator_pb2.AccessDecision) -> str | None:
    return decision.expires_at.ToJsonString() if decision.HasField("expires_at") else None
