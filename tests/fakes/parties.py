"""Compute parties without arithmetic: they keep names and numbers as the real ones do, and no vector."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from libs.core.errors import AlreadyExists, FailedPrecondition, NotFound, PermissionDenied, TrefoilError
from libs.rpc._generated.trefoil.party.v1 import party_pb2 as pb
from libs.rpc._generated.trefoil.party.v1 import party_pb2_grpc as pb_grpc
from libs.rpc.caller import current_caller

Attempt = tuple[str, int, int]
AGGREGATED = pb.CloseRoundResponse.OUTCOME_AGGREGATED
BELOW_QUORUM = pb.CloseRoundResponse.OUTCOME_BELOW_QUORUM
BYTES_PER_CLOSE = 100


def attempt_of(reference: Any) -> Attempt:
    return reference.study_id, reference.round, reference.attempt


@dataclass
class FakeParty(pb_grpc.PartyServiceServicer):
    """One party. Fake hospitals fill `contributions`; `failures` are raised one per call, by method."""

    models: dict[str, pb.RegisterModelRequest] = field(default_factory=dict)
    rounds: dict[Attempt, pb.OpenRoundRequest] = field(default_factory=dict)
    contributions: dict[Attempt, set[str]] = field(default_factory=dict)
    closed: dict[Attempt, tuple[str, ...]] = field(default_factory=dict)
    abandoned: list[Attempt] = field(default_factory=list)
    computations: list[str] = field(default_factory=list)
    predictions: list[pb.OpenPredictionRequest] = field(default_factory=list)
    failures: dict[str, list[TrefoilError]] = field(default_factory=dict)
    hanging: set[str] = field(default_factory=set)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    callers: set[str] = field(default_factory=set)
    limit: int | None = None
    first_waits_s: float = 0.0
    refuses: set[str] = field(default_factory=set)
    """Hospitals whose contributions its check refuses."""

    async def RegisterModel(self, request: pb.RegisterModelRequest, _: Any) -> pb.RegisterModelResponse:
        await self._called("RegisterModel")
        if self.models.setdefault(request.model_id, request) != request:
            raise AlreadyExists(f"{request.model_id} is registered otherwise.")
        return pb.RegisterModelResponse()

    async def OpenRound(self, request: pb.OpenRoundRequest, _context: Any) -> pb.OpenRoundResponse:
        await self._called("OpenRound")
        key = attempt_of(request.round)
        if self.rounds.setdefault(key, request) != request:
            raise AlreadyExists("The round is open with other numbers.")
        return pb.OpenRoundResponse()

    async def CloseRound(self, request: pb.CloseRoundRequest, _context: Any) -> pb.CloseRoundResponse:
        await self._called("CloseRound")
        self.computations.append(request.computation_id)
        key = attempt_of(request.round)
        opening = self.rounds.get(key)
        if opening is None:
            raise NotFound("There is no such round.")
        held = self.contributions.get(key, set())
        refused = held & self.refuses if opening.metrics_length else set()  # releases are not checked
        survivors = self.closed.get(key) or tuple(sorted(held - refused))
        if len(survivors) < opening.quorum:
            return pb.CloseRoundResponse(outcome=BELOW_QUORUM, refused_identities=refused)
        self.closed[key] = survivors
        return pb.CloseRoundResponse(
            outcome=AGGREGATED,
            result_model_id=opening.result_model_id,
            survivor_identities=survivors,
            bytes_sent_to_peers=BYTES_PER_CLOSE,
            refused_identities=refused,
        )

    async def AbandonRound(self, request: pb.AbandonRoundRequest, _context: Any) -> pb.AbandonRoundResponse:
        await self._called("AbandonRound")
        key = attempt_of(request.round)
        if self.rounds.pop(key, None) is None:
            raise NotFound("There is no such round.")
        self.contributions.pop(key, None)
        self.abandoned.append(key)
        return pb.AbandonRoundResponse()

    async def OpenPrediction(
        self, request: pb.OpenPredictionRequest, _context: Any
    ) -> pb.OpenPredictionResponse:
        await self._called("OpenPrediction")
        if self.limit is not None:
            waits_s, self.first_waits_s = self.first_waits_s, 0.0
            await asyncio.sleep(waits_s)
            if len(self.predictions) >= self.limit:
                raise PermissionDenied("All predictions are used up.")
        self.predictions.append(request)
        return pb.OpenPredictionResponse(limited=self.limit is not None)

    def contribute(self, attempt: Attempt, hospital: str) -> None:
        """What PutShares does, without shares."""
        opening = self.rounds.get(attempt)
        if opening is None or hospital not in {p.hospital_identity for p in opening.participants}:
            raise FailedPrecondition(f"{hospital} has no part in {attempt}.")
        self.contributions.setdefault(attempt, set()).add(hospital)

    async def _called(self, method: str) -> None:
        self.callers.add(current_caller().identity.uri)
        if method in self.hanging:
            await self.released.wait()
        if self.failures.get(method):
            raise self.failures[method].pop(0)
