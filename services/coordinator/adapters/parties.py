"""The three parties over gRPC, always asked together. No message here can hold an array."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import grpc

from libs.core.errors import CallerError, NotFound, PeerViolation, TrefoilError, Unavailable
from libs.core.ids import PartyId
from libs.mpc.ring import Ring
from libs.rpc._generated.trefoil.party.v1 import party_pb2, party_pb2_grpc
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from libs.rpc.channel import open_channel, translate
from libs.rpc.identity import Identity, TlsFiles
from libs.rpc.recorder import Recorder
from services.coordinator.model_access import ModelUse
from services.coordinator.ports import (
    ModelRegistration,
    PartyAddress,
    PredictionOpening,
    RoundClosing,
    RoundKey,
    RoundOpening,
)
from services.coordinator.wire_values import to_fraction

T = TypeVar("T")
_RINGS = {Ring.RING_32: types_pb2.RING_32, Ring.RING_64: types_pb2.RING_64}


class GrpcParties:
    """The Parties port. Calls go out concurrently; of several errors the most lasting is raised."""

    def __init__(
        self,
        addresses: Sequence[PartyAddress],
        *,
        cells: Sequence[Sequence[str]] = (),
        tls: TlsFiles,
        call_timeout_s: float,
        closing_timeout_s: float,
        recorder: Recorder | None,
    ) -> None:
        """`cells`: for each further cell the addresses of party 0, 1 and 2's replica in it."""
        first = tuple(sorted(addresses, key=lambda party: party.index))
        others = (
            tuple(replace(party, address=address) for party, address in zip(first, cell, strict=True))
            for cell in cells
        )
        self._cells = (first, *others)
        self._channels: list[grpc.aio.Channel] = []
        self._stubs = [
            {party.index: self._stub(party, tls, recorder) for party in cell} for cell in self._cells
        ]
        self._timeout_s, self._closing_timeout_s = call_timeout_s, closing_timeout_s

    def _stub(
        self, party: PartyAddress, tls: TlsFiles, recorder: Recorder | None
    ) -> party_pb2_grpc.PartyServiceAsyncStub:
        channel = open_channel(
            address=party.address, server=Identity.parse(party.identity), tls=tls, recorder=recorder
        )
        self._channels.append(channel)
        return party_pb2_grpc.PartyServiceStub(channel)

    @property
    def addresses(self) -> tuple[PartyAddress, ...]:
        """Of cell 0, by index."""
        return self._cells[0]

    @property
    def cells(self) -> int:
        """How many there are."""
        return len(self._cells)

    def cell(self, number: int) -> tuple[PartyAddress, ...]:
        """The parties of one cell, by index."""
        return self._cells[number]

    async def close(self) -> None:
        """Hang up."""
        for channel in self._channels:
            await channel.close()

    async def register_model(self, registration: ModelRegistration) -> None:
        """Announce a vector that its owner will deal."""
        request = party_pb2.RegisterModelRequest(
            model_id=registration.model_id,
            ring=_RINGS[registration.ring],
            length=registration.length,
            dealer_identity=registration.dealer,
            reader_identities=registration.readers,
            plan=registration.plan,
            use=_use(registration.use),
        )
        await self._ask(lambda stub: stub.RegisterModel(request, timeout=self._timeout_s))

    async def open_round(self, opening: RoundOpening) -> None:
        """Open a round for contributions. AlreadyExists if a party has it with other numbers."""
        request = party_pb2.OpenRoundRequest(
            round=_reference(opening.key),
            ring=_RINGS[opening.ring],
            update_length=opening.update_length,
            metrics_length=opening.metrics_length,
            participants=[
                party_pb2.Participant(hospital_identity=hospital, weight=to_fraction(weight))
                for hospital, weight in opening.weights.items()
            ],
            quorum=opening.quorum,
            base_model_id=opening.base_model_id,
            result_model_id=opening.result_model_id,
            reader_identities=opening.readers,
            metrics_reader_identities=opening.metrics_readers,
            plan=opening.plan,
            use=_use(opening.use),
            check=types_pb2.ContributionCheck(max_norm=opening.max_norm, same=opening.same),
            noise=types_pb2.SumNoise(std=opening.noise_std),
        )
        await self._ask(lambda stub: stub.OpenRound(request, timeout=self._timeout_s))

    async def close_round(self, key: RoundKey, *, computation_id: str) -> RoundClosing:
        """Have the contributions added. PeerViolation when the parties do not agree on the outcome."""
        request = party_pb2.CloseRoundRequest(round=_reference(key), computation_id=computation_id)
        answers = await self._ask(lambda stub: stub.CloseRound(request, timeout=self._closing_timeout_s))
        outcomes = {
            (
                answer.outcome,
                tuple(sorted(answer.survivor_identities)),
                tuple(sorted(answer.refused_identities)),
            )
            for answer in answers
        }
        outcome, survivors, refused = outcomes.pop()
        known = (
            party_pb2.CloseRoundResponse.OUTCOME_AGGREGATED,
            party_pb2.CloseRoundResponse.OUTCOME_BELOW_QUORUM,
        )
        if outcomes or outcome not in known:
            raise PeerViolation(
                computation=computation_id,
                sender="0, 1 or 2",
                rule="all parties report one outcome of a round",
            )
        complete = outcome == party_pb2.CloseRoundResponse.OUTCOME_AGGREGATED
        return RoundClosing(
            survivors=survivors if complete else None,
            bytes_between_parties=sum(answer.bytes_sent_to_peers for answer in answers),
            refused=refused,
        )

    async def abandon_round(self, key: RoundKey) -> None:
        """Have a round forgotten. Fine if a party never knew it."""
        request = party_pb2.AbandonRoundRequest(round=_reference(key))

        async def abandon(stub: party_pb2_grpc.PartyServiceAsyncStub) -> None:
            try:
                await stub.AbandonRound(request, timeout=self._timeout_s)
            except grpc.aio.AioRpcError as error:
                if not isinstance(translate(error), NotFound):
                    raise

        await self._ask(abandon)

    async def open_prediction(self, opening: PredictionOpening, *, cell: int) -> bool:
        """Give the three parties of a cell their roles; whether one counts it under a limit.

        What only some accepted ends by its deadline.
        """
        request = party_pb2.OpenPredictionRequest(
            computation_id=opening.computation_id,
            model_id=opening.model_id,
            batch=opening.batch,
            dealer=opening.dealer,
            first_evaluator=opening.first_evaluator,
            second_evaluator=opening.second_evaluator,
            client_identity=opening.client,
            deadline_s=opening.deadline_s,
        )
        answers = await self._ask(
            lambda stub: stub.OpenPrediction(request, timeout=self._timeout_s), cell=cell
        )
        return any(answer.limited for answer in answers)

    async def _ask(
        self, call: Callable[[party_pb2_grpc.PartyServiceAsyncStub], Awaitable[T]], *, cell: int = 0
    ) -> list[T]:
        """Every party's answer, by index. All are waited for: no call of ours goes on after an error."""
        results = await asyncio.gather(
            *(self._ask_one(party, stub, call) for party, stub in self._stubs[cell].items()),
            return_exceptions=True,
        )
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:
            raise min(failures, key=_blame)
        return [result for result in results if not isinstance(result, BaseException)]

    async def _ask_one(
        self,
        party: PartyId,
        stub: party_pb2_grpc.PartyServiceAsyncStub,
        call: Callable[[party_pb2_grpc.PartyServiceAsyncStub], Awaitable[T]],
    ) -> T:
        try:
            return await call(stub)
        except grpc.aio.AioRpcError as error:
            raise _naming(party, translate(error)) from error


def _use(use: ModelUse) -> types_pb2.ModelUse:
    return types_pb2.ModelUse(
        anyone=use.anyone, asker_identities=use.askers, max_predictions=use.max_predictions
    )


def _reference(key: RoundKey) -> types_pb2.RoundRef:
    return types_pb2.RoundRef(study_id=key.study_id, round=key.number, attempt=key.attempt)


def _naming(party: PartyId, error: TrefoilError) -> TrefoilError:
    """The same error, saying which party it comes from."""
    if isinstance(error, PeerViolation):  # names the one to blame already
        return error
    return type(error)(f"Party {party}: {error}")


def _blame(error: BaseException) -> int:
    """What will not go away by waiting is worth saying first."""
    if isinstance(error, CallerError):
        return 1
    return 2 if isinstance(error, Unavailable) else 0
