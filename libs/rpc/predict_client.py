"""The clinic's side of an encrypted prediction: it alone sees the image and the result.

The coordinator names the parties and their roles, but it is not believed: the client checks that three
different parties are meant, and TLS that each address is served by the party it stands for. Whoever
could be both evaluators would see the image.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
import numpy.typing as npt

from libs.core.errors import InvalidInput
from libs.core.ids import PARTIES, PartyId
from libs.mpc.ring import RingArray
from libs.mpc.schemes.masked.roles import Roles
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.rpc._generated.trefoil.party.v1 import party_pb2, party_pb2_grpc
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from libs.rpc.arrays import chunks_of, from_bytes, sha256_of
from libs.rpc.channel import open_channel, translated
from libs.rpc.concurrently import together
from libs.rpc.identity import Identity, TlsFiles, party_identity
from libs.rpc.recorder import Recorder
from libs.secure_nn.client import mask_input, reveal_output
from libs.secure_nn.plan import Plan

MARGIN_S = 5.0
"""Our own deadline is this much later than the parties', so that their clearer error arrives first."""

GRACE_S = 0.5
"""After one evaluator's error, how long to wait for the other's, which may say more."""


@dataclass(frozen=True)
class EvaluatorReport:
    """What one evaluator says that a prediction cost it."""

    party: PartyId
    rounds: int
    bytes_sent_online: int
    online_s: float
    bytes_received_offline: int
    offline_s: float
    dealt_ahead: bool
    """Whether the material came from the pool."""


@dataclass(frozen=True)
class Waited:
    """Seconds on the client's clock, one after the other.

    `prepared_s`: until both evaluators had their material and had sent their seeds; next to nothing when it
    was dealt ahead. `masked_s`: masking the images here. `online_s`: from sending the masked input to
    holding the logits.
    """

    prepared_s: float
    masked_s: float
    online_s: float


@dataclass(frozen=True)
class Prediction:
    """The logits (batch, *output shape), and what they cost."""

    logits: npt.NDArray[np.float64]
    roles: Roles
    reports: tuple[EvaluatorReport, EvaluatorReport]
    waited: Waited
    bytes_sent: int
    bytes_received: int


@dataclass(frozen=True)
class Assignment:
    """Who computes, as the coordinator said and this client checked."""

    computation_id: str
    roles: Roles
    addresses: dict[PartyId, str]
    deadline_s: float

    @classmethod
    def checked(cls, response: coordinator_pb2.OpenPredictionResponse) -> Self:
        """Raises `InvalidInput` unless these are the three parties, each once and in one role."""
        addresses = _addresses(response.parties)
        roles = Roles(
            PartyId(response.dealer), PartyId(response.first_evaluator), PartyId(response.second_evaluator)
        )
        return cls(response.computation_id, roles, addresses, response.deadline_s)


class PredictClient:
    """Predictions over channels that are kept between them. Use as `async with PredictClient(...)`."""

    def __init__(self, *, tls: TlsFiles, token_file: Path | None, recorder: Recorder | None = None) -> None:
        self._tls, self._token_file, self._recorder = tls, token_file, recorder
        self._channels: dict[tuple[PartyId, str], grpc.aio.Channel] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channels."""
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()

    async def predict(
        self,
        response: coordinator_pb2.OpenPredictionResponse,
        plan: Plan,
        images: npt.NDArray[np.floating[Any]],
    ) -> Prediction:
        """The result for `images` (B, C, H, W), preprocessed as in training.

        `plan` is the one that the caller trusts; the coordinator's must be the same. Raises what an
        evaluator answered, `InvalidInput` for images that the plan does not take.
        """
        assignment = Assignment.checked(response)
        if response.plan and response.plan != plan.to_json():
            raise InvalidInput(
                "The coordinator names another plan than the one that was checked. Do not go on."
            )
        roles = assignment.roles
        first, second = (
            _Conversation(self._stub(assignment, party), party, assignment)
            for party in (roles.first, roles.second)
        )
        try:
            times = [time.perf_counter()]
            seeds = await together(first.open(), second.open(), grace_s=GRACE_S)
            times.append(time.perf_counter())
            masked = await asyncio.to_thread(mask_input, plan, images, *seeds)
            times.append(time.perf_counter())
            shares = await together(first.ask(masked, plan), second.ask(masked, plan), grace_s=GRACE_S)
            logits = reveal_output(plan, *shares, batch=len(images))
            times.append(time.perf_counter())
        finally:
            first.cancel()
            second.cancel()
        return Prediction(
            logits=logits,
            roles=roles,
            reports=(first.report, second.report),
            waited=Waited(*(after - before for before, after in pairwise(times))),
            bytes_sent=first.bytes_sent + second.bytes_sent,
            bytes_received=first.bytes_received + second.bytes_received,
        )

    def _stub(self, assignment: Assignment, party: PartyId) -> Any:
        key = (party, assignment.addresses[party])
        if key not in self._channels:
            self._channels[key] = open_channel(
                address=key[1],
                server=party_identity(party),
                tls=self._tls,
                token_file=self._token_file,
                recorder=self._recorder,
            )
        return party_pb2_grpc.PartyServiceStub(self._channels[key])


class _Conversation:
    """One stream with one evaluator."""

    def __init__(self, stub: Any, party: PartyId, assignment: Assignment) -> None:
        self._party, self._assignment = party, assignment
        self._input: asyncio.Future[list[party_pb2.PredictRequest]]
        self._input = asyncio.get_running_loop().create_future()
        self._call: Any = stub.Predict(self._requests(), timeout=assignment.deadline_s + MARGIN_S)
        self._responses: AsyncIterator[party_pb2.PredictResponse] = aiter(self._call)
        self._end: party_pb2.PredictEnd | None = None
        self.bytes_sent = 0
        self.bytes_received = 0

    async def open(self) -> bytes:
        """The seed of this evaluator's half of the mask."""
        with translated():
            response = await anext(self._responses, None)
        if response is None or response.WhichOneof("part") != "mask":
            raise InvalidInput(f"Party {self._party} did not begin with its mask. Ask again.")
        self.bytes_received += response.ByteSize()
        return response.mask.seed

    async def ask(self, masked: RingArray, plan: Plan) -> RingArray:
        """This evaluator's share of the output, flat."""
        chunks = [
            party_pb2.PredictRequest(masked_input_chunk=chunk) for chunk in chunks_of(masked, plan.ring)
        ]
        end = party_pb2.InputEnd(sha256=sha256_of(masked, plan.ring))
        self._input.set_result([*chunks, party_pb2.PredictRequest(input_end=end)])
        content = bytearray()
        limit = len(masked) * int(np.prod(plan.output_shape)) * plan.ring.element_bytes
        with translated():
            async for response in self._responses:
                self.bytes_received += response.ByteSize()
                content += response.output_share_chunk
                if len(content) > limit:
                    raise InvalidInput(f"Party {self._party} sent more than its share of the output.")
                if response.WhichOneof("part") == "end":
                    self._end = response.end
        return from_bytes(content, ring=plan.ring, shape=(limit // plan.ring.element_bytes,))

    @property
    def report(self) -> EvaluatorReport:
        """What the evaluator said at the end."""
        if self._end is None:
            raise InvalidInput(f"Party {self._party} ended without its report; its answer is incomplete.")
        end = self._end
        return EvaluatorReport(
            party=self._party,
            rounds=end.rounds,
            bytes_sent_online=end.bytes_sent_online,
            online_s=end.online_s,
            bytes_received_offline=end.bytes_received_offline,
            offline_s=end.offline_s,
            dealt_ahead=end.dealt_ahead,
        )

    def cancel(self) -> None:
        """End the stream if it has not ended; the parties burn the computation then."""
        self._input.cancel()
        self._call.cancel()

    async def _requests(self) -> AsyncIterator[party_pb2.PredictRequest]:
        opening = party_pb2.PredictOpen(computation_id=self._assignment.computation_id)
        yield party_pb2.PredictRequest(open=opening)
        for request in await self._input:
            self.bytes_sent += request.ByteSize()
            yield request


def _addresses(parties: Iterable[types_pb2.Party]) -> dict[PartyId, str]:
    addresses: dict[PartyId, str] = {}
    for party in parties:
        index = PartyId(party.index)
        if Identity.parse(party.endpoint.identity) != party_identity(index) or index in addresses:
            raise InvalidInput(
                "The coordinator named one party twice or under a false identity. Do not go on."
            )
        addresses[index] = party.endpoint.address
    if set(addresses) != set(PARTIES) or len(set(addresses.values())) != len(PARTIES):
        raise InvalidInput("A prediction needs three parties at three addresses. Do not go on.")
    return addresses
