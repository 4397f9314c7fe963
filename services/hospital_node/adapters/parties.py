"""The three compute parties: at addresses that the coordinator names, with identities that it cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import grpc

from libs.core.errors import Unavailable
from libs.core.ids import PartyId
from libs.fl.metrics import RoundMetrics, decode_metrics
from libs.mpc.ring import Ring, RingArray
from libs.rpc._generated.trefoil.party.v1 import party_pb2
from libs.rpc._generated.trefoil.party.v1.party_pb2_grpc import PartyServiceStub
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from libs.rpc.channel import translated
from libs.rpc.identity import Identity, party_identity
from libs.rpc.share_client import Patience, deal_vector, fetch_vector
from services.hospital_node.access.model_use import UseRules
from services.hospital_node.domain import TaskKey, Terms

CALL_TIMEOUT_S = 30.0
PATIENCE = Patience(attempts=40)
"""Three minutes without a byte of progress: lines come back, parties restart, and an upload that was given up
is lost for its round. The round's deadline ends it in any case."""

Dial = Callable[[str, Identity], grpc.aio.Channel]


class ShareParties:
    """Implements `ports.Parties`.

    A channel expects the certificate of party 0, 1 or 2 whatever the coordinator said, so a wrong address can
    make a round fail, but no two shares can end up in one place.
    """

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._addresses: dict[PartyId, str] = {}
        self._channels: dict[PartyId, grpc.aio.Channel] = {}
        self._replaced: list[grpc.aio.Channel] = []

    def use(self, addresses: Mapping[PartyId, str]) -> None:
        """Where the parties are now. Channels to unchanged addresses stay open.

        Raises what dialling raises, InvalidInput for a certificate that is missing at the moment; the same
        addresses again are then dialled again.
        """
        for party, address in addresses.items():
            if self._addresses.get(party) == address:
                continue
            channel = self._dial(address, party_identity(party))
            if party in self._channels:
                # A task may still be using it: it is closed with the rest.
                self._replaced.append(self._channels[party])
            self._addresses[party], self._channels[party] = address, channel

    async def fetch(self, model_id: str) -> RingArray:
        """A version of the training weights, which are always in the 32-bit ring."""
        return await fetch_vector(
            types_pb2.VectorRef(model_id=model_id),
            ring=Ring.RING_32,
            channels=self._named(),
            patience=PATIENCE,
        )

    async def metrics(self, study_id: str, *, round_number: int) -> RoundMetrics:
        """Opened from the three parties' shares, here and at other readers only."""
        place = types_pb2.RoundRef(study_id=study_id, round=round_number)
        encoded = await fetch_vector(
            types_pb2.VectorRef(metrics=place), ring=Ring.RING_32, channels=self._named()
        )
        return decode_metrics(encoded)

    async def deal(
        self, key: TaskKey, vector: RingArray, *, ring: Ring, upload_id: str, terms: Terms
    ) -> None:
        """Retries send the same shares under the same id; they live in memory only."""
        place = types_pb2.RoundRef(study_id=key.study_id, round=key.round, attempt=key.attempt)
        ref = types_pb2.VectorRef(contribution=place)
        required = types_pb2.ContributionTerms(
            quorum=terms.quorum,
            hospital_identities=terms.hospitals,
            reader_identities=terms.readers,
            metrics_reader_identities=terms.metrics_readers,
            use=types_pb2.ModelUse(
                anyone=terms.use.anyone,
                asker_identities=terms.use.askers,
                max_predictions=terms.use.max_predictions,
            ),
            weight=types_pb2.Fraction(numerator=terms.weight.numerator, denominator=terms.weight.denominator),
            metrics_length=terms.metrics_length,
            compiled_plan_hash=terms.compiled_plan_hash,
            result_model_id=terms.result_model_id,
            check=types_pb2.ContributionCheck(max_norm=terms.max_norm, same=terms.same),
            noise=types_pb2.SumNoise(std=terms.noise_std),
        )
        await deal_vector(
            vector,
            ring=ring,
            ref=ref,
            channels=self._named(),
            upload_id=upload_id,
            terms=required,
            patience=PATIENCE,
        )

    async def set_model_use(self, party: PartyId, rules: UseRules) -> int:
        """Implements `model_use.Parties`."""
        request = party_pb2.SetModelUseRequest(model_id=rules.model_id, revision=rules.revision)
        for rule in rules.rules:
            request.rules.add(
                asker_identity=rule.asker,
                allowed=rule.allowed,
                max_predictions=rule.max_predictions,
                expires_at_s=0 if rule.expires_at is None else int(rule.expires_at.timestamp()),
                approval_id=rule.approval_id,
            )
        with translated():
            stub = PartyServiceStub(self._named()[party])
            answer = await stub.SetModelUse(request, timeout=CALL_TIMEOUT_S)
        return int(answer.revision)

    async def model_use(self, party: PartyId, model_id: str) -> Mapping[str, int]:
        """Implements `model_counts.Parties`."""
        request = party_pb2.DescribeModelUseRequest(model_id=model_id)
        with translated():
            stub = PartyServiceStub(self._named()[party])
            answer = await stub.DescribeModelUse(request, timeout=CALL_TIMEOUT_S)
        return {count.asker_identity: count.predictions for count in answer.counts}

    async def close(self) -> None:
        """Close all channels."""
        for channel in (*self._replaced, *self._channels.values()):
            await channel.close()

    def _named(self) -> Mapping[PartyId, grpc.aio.Channel]:
        if not self._channels:
            raise Unavailable("The coordinator has not named the parties yet. Try again once it has.")
        return dict(self._channels)
