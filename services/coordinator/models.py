"""Models that can be asked, and who plays which part in each encrypted prediction."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass

from libs.core.clock import Clock
from libs.core.errors import AlreadyExists, Bug, InvalidInput, NotFound, Unavailable
from libs.core.ids import PARTIES, new_id
from libs.runtime.logging import get_logger
from services.coordinator import trail_events
from services.coordinator.descriptions import checked_text
from services.coordinator.model_access import ModelUse
from services.coordinator.paging import from_token, page_size, to_token
from services.coordinator.ports import (
    Compiler,
    Model,
    ModelRegistration,
    Page,
    Parties,
    PartyAddress,
    PredictionOpening,
    Repository,
)
from services.coordinator.studies import MAX_REQUEST_ID, MAX_TITLE, Person, derived_id

log = get_logger(__name__)

MAX_REMEMBERED = 100_000
"""Models and clients who ask them without a limit; those beyond take turns."""


@dataclass(frozen=True)
class OpenedPrediction:
    """What a client needs to ask: roles, and the plan that the evaluators will run."""

    opening: PredictionOpening
    model: Model
    parties: tuple[PartyAddress, ...]


class Models:
    """Imported and released models, and predictions with them."""

    def __init__(
        self,
        *,
        repository: Repository,
        parties: Parties,
        compiler: Compiler,
        clock: Clock,
        max_batch: int,
        prediction_deadline_s: float,
    ) -> None:
        self._repository, self._parties, self._compiler = repository, parties, compiler
        self._clock, self._max_batch, self._deadline_s = clock, max_batch, prediction_deadline_s
        self._asked: defaultdict[str, int] = defaultdict(int)
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._unlimited: set[tuple[str, str]] = set()

    async def register(
        self, person: Person, *, request_id: str, name: str, plan: bytes, use: ModelUse
    ) -> Model:
        """A model that its owner compiled and will deal itself; the same request gives the same model.

        He may ask it, and so may those in `use`. Raises InvalidInput for a wrong plan or asker, AlreadyExists
        for another plan or use under this request id, Unavailable when a party is down.
        """
        checked_id = checked_text("request id", request_id, limit=MAX_REQUEST_ID)
        model_id = derived_id("model", person.identity, checked_id)
        shape = await self._compiler.describe(plan)
        model = Model(
            model_id=model_id,
            name=checked_text("name", name, limit=MAX_TITLE),
            plan=shape.json,
            plan_hash=shape.hash,
            owner=person.subject,
            created_at=self._clock.now(),
            ready=False,
            use=use,
        )
        existing = self._repository.model(model_id)
        if existing is None:
            await self._parties.register_model(
                ModelRegistration(
                    model_id=model_id,
                    ring=shape.ring,
                    length=shape.parameter_length,
                    dealer=person.identity,
                    readers=(),
                    plan=shape.json,
                    use=use,
                )
            )
            existing = self._repository.add_model(model)
        if _content(existing) != _content(model):
            raise AlreadyExists(
                "Another model was imported with this request id. Use a new request id for a new model."
            )
        return existing

    def page(self, *, size: int, token: str) -> Page[Model]:
        """All models in the order of creation. The page's key is the next token."""
        after = from_token(token, listing="models")
        page = self._repository.page_of_models(after=after, limit=page_size(size))
        return Page(page.items, to_token(page.next_key, listing="models"))

    async def open_prediction(self, client: str, *, model_id: str, batch: int) -> OpenedPrediction:
        """Roles for one prediction by this client, announced to the three parties of a cell.

        Predictions go to the cells in turn, and within each the roles rotate per model, so that each server
        carries a third of each kind of work. A cell that cannot be reached is passed over. Only the parties
        know whether an imported model was dealt: they refuse with FailedPrecondition until then, and the
        first prediction that they accept marks it ready.
        """
        model = self._repository.model(model_id)
        if model is None:
            raise NotFound(f"There is no model {model_id!r}. Check its name in the list of models.")
        if not 1 <= batch <= self._max_batch:
            raise InvalidInput(
                f"A prediction takes 1 to {self._max_batch} images, not {batch}. Split them into batches."
            )
        turn = self._asked[model_id]
        self._asked[model_id] += 1
        opening, cell = await self._open(turn, model_id=model_id, batch=batch, client=client)
        if not model.ready:
            self._repository.mark_model_ready(model_id)
        self._repository.record(trail_events.prediction_opened(opening, cell))
        log.info(
            "prediction_opened",
            computation_id=opening.computation_id,
            model_id=model_id,
            batch=batch,
            dealer=opening.dealer,
            cell=cell,
        )
        return OpenedPrediction(opening, model, self._parties.cell(cell))

    async def _open(
        self, turn: int, *, model_id: str, batch: int, client: str
    ) -> tuple[PredictionOpening, int]:
        """The assignment, and the first cell from this turn's on that took it."""
        cells = self._parties.cells
        for attempt in range(cells):
            cell = (turn + attempt) % cells
            dealer, first, second = (PARTIES[(turn // cells + offset) % 3] for offset in range(3))
            opening = PredictionOpening(
                computation_id=new_id("prediction"),
                model_id=model_id,
                batch=batch,
                dealer=dealer,
                first_evaluator=first,
                second_evaluator=second,
                client=client,
                deadline_s=self._deadline_s,
            )
            try:
                await self._announce(opening, cell=cell)
            except Unavailable as error:
                log.warning("cell_passed_over", cell=cell, reason=str(error))
                if attempt + 1 == cells:
                    raise
            else:
                return opening, cell
        raise Bug("There is no cell at all.")

    async def _announce(self, opening: PredictionOpening, *, cell: int) -> None:
        """Tell the parties; those of a model in turn, unless the client is known to have no limit there.

        Each party counts for itself. Told of two predictions in different orders, each of the two could get
        the last one at some party, and neither at all three.
        """
        asked = (opening.model_id, opening.client)
        if asked in self._unlimited:
            limited = await self._parties.open_prediction(opening, cell=cell)
        else:
            async with self._turns[opening.model_id]:
                limited = await self._parties.open_prediction(opening, cell=cell)
        if limited:
            self._unlimited.discard(asked)
        elif len(self._unlimited) < MAX_REMEMBERED:
            self._unlimited.add(asked)


def _content(model: Model) -> object:
    return model.name, model.plan_hash, model.owner, model.use
