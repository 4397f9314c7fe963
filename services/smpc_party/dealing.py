"""One piece of material, made by the three parties: for a client who waits, or ahead for the pool."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass

from libs.core.errors import Bug
from libs.core.ids import PartyId
from libs.mpc.prg import MaskSource
from libs.mpc.schemes.masked.roles import Dealer, Evaluator
from libs.rpc.computation import Session
from libs.rpc.run_party import run_party
from libs.secure_nn.predict import Material, deal_program, prepare_program
from libs.secure_nn.secure_model import EvaluatorModel
from services.smpc_party.masked_models import MaskedModels, ModelShare, dealer_part, evaluator_part
from services.smpc_party.material import Shelf


@dataclass(frozen=True, repr=False)
class Ready:
    """What an evaluator needs once the input is there, and what it cost to make."""

    material: Material
    weights: EvaluatorModel
    seconds: float
    received_bytes: int


@dataclass(frozen=True, repr=False)
class Dealt:
    """This party's part of one piece. `ready` is None for the dealer."""

    masking: bytes
    seconds: float
    ready: Ready | None

    @property
    def of_evaluator(self) -> Ready:
        """An evaluator's part."""
        if self.ready is None:
            raise Bug("A dealer was taken for an evaluator.")
        return self.ready


class Dealing:
    """Makes pieces. Both roads to a prediction use it, so they cannot drift apart."""

    def __init__(self, *, me: PartyId, masked_models: MaskedModels) -> None:
        self._me, self._masked_models = me, masked_models

    async def make(
        self,
        session: Session,
        masks: Mapping[PartyId, MaskSource],
        shelf: Shelf,
        model: ModelShare,
        executor: Executor,
    ) -> Dealt:
        """This party's part, from a session that all three have joined, with the session's masks.

        Raises what a peer caused.
        """
        roles, plan = shelf.roles, model.plan
        started_s = time.monotonic()
        name, masked = await self._masked_models.agree(session, model, roles)
        if self._me == roles.dealer:
            dealer = Dealer(masks[roles.first], masks[roles.second])
            dealing = deal_program(plan, dealer_part(masked), dealer, roles, batch=shelf.batch)
            await run_party(dealing, session, executor=executor)
            return Dealt(name, time.monotonic() - started_s, None)
        weights = evaluator_part(masked)
        evaluator = Evaluator.of(self._me, roles, masks[roles.dealer])
        preparing = prepare_program(plan, weights, evaluator, batch=shelf.batch)
        material = await run_party(preparing, session, executor=executor)
        seconds = time.monotonic() - started_s
        return Dealt(name, seconds, Ready(material, weights, seconds, material.bytes_received))
