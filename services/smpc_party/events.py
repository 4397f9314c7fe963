"""What a party enters into its audit trail: who, which model, round or prediction. Never a share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from libs.core.errors import TrefoilError
from libs.core.ids import PartyId
from libs.rpc.caller import current_actor, current_request_id
from libs.rpc.identity import Identity
from libs.runtime.audit.entry import Detail, Event, Outcome, listed
from services.smpc_party.domain import ModelSpec, PredictionSpec, RoundKey, RoundSpec, StoredShare
from services.smpc_party.model_use import EVERYBODY, HospitalRules
from services.smpc_party.ports import Prepared


def model_registered(spec: ModelSpec) -> Event:
    """A model's name is taken here; whoever deals it is named."""
    plan_hash = hashlib.sha256(spec.plan).hexdigest() if spec.plan else ""
    dealer = spec.dealer.uri if spec.dealer else ""
    return _event("model.registered", f"model {spec.model_id}", {"dealer": dealer, "plan_sha256": plan_hash})


def share_stored(what: str, upload_id: str, share: StoredShare) -> Event:
    """This party's share of something is on its disk."""
    return _event("share.stored", what, {"upload_id": upload_id, "length": share.length})


def share_fetched(what: str) -> Event:
    """The caller gets this party's share of something."""
    return _event("share.fetched", what, {})


def round_opened(spec: RoundSpec) -> Event:
    """Contributions are taken."""
    hospitals = [participant.hospital.name for participant in spec.participants]
    return _event(
        "round.opened",
        str(spec.key),
        {
            "attempt": spec.attempt,
            "hospitals": listed(hospitals),
            "quorum": spec.quorum,
            "base": spec.base_model_id,
            "result": spec.result_model_id,
        },
    )


def round_closed(spec: RoundSpec, prepared: Prepared) -> Event:
    """The contributions of the survivors are added, and gone."""
    survivors = listed([hospital.name for hospital in prepared.survivors])
    details: dict[str, Detail] = {"attempt": spec.attempt, "survivors": survivors}
    details |= _refused(prepared.refused) | {"result": spec.result_model_id}
    return _event("round.closed", str(spec.key), details)


def round_fell_short(key: RoundKey, attempt: int, refused: Sequence[Identity]) -> Event:
    """Too few hospitals; nothing was added."""
    details: dict[str, Detail] = {"attempt": attempt}
    return _event("round.fell_short", str(key), details | _refused(refused), Outcome.FAILED)


def round_abandoned(spec: RoundSpec) -> Event:
    """The round is forgotten, with all its contributions."""
    return _event("round.abandoned", str(spec.key), {"attempt": spec.attempt})


def model_use_set(model_id: str, rules: HospitalRules) -> Event:
    """The calling hospital says who may ask a model that it is in."""
    allowed, denied = (
        listed([r.asker.name if r.asker else EVERYBODY for r in rules.rules if r.allowed is which])
        for which in (True, False)
    )
    details: dict[str, Detail] = {"revision": rules.revision, "allowed": allowed, "denied": denied}
    return _event("model.use_set", f"model {model_id}", details)


def prediction_opened(spec: PredictionSpec, me: PartyId) -> Event:
    """This party takes a role in a prediction for a client."""
    return _prediction("prediction.opened", spec, me, current_actor())


def prediction_claimed(spec: PredictionSpec, me: PartyId) -> Event:
    """The client it was assigned to begins its stream."""
    return _prediction("prediction.claimed", spec, me, current_actor())


def prediction_finished(spec: PredictionSpec, me: PartyId) -> Event:
    """This party's part is done, and its answer is there to be taken."""
    return _prediction("prediction.finished", spec, me, "system")


def prediction_burned(spec: PredictionSpec, me: PartyId, error: TrefoilError) -> Event:
    """It came to nothing, and nothing of it is used again."""
    return _prediction("prediction.burned", spec, me, "system", code=error.code)


def _prediction(action: str, spec: PredictionSpec, me: PartyId, actor: str, code: str = "") -> Event:
    details: dict[str, Detail] = {
        "model": spec.model_id,
        "batch": spec.batch,
        "client": spec.client.uri,
        "role": "dealer" if spec.is_dealer(me) else "evaluator",
    }
    return Event(
        action,
        actor,
        f"prediction {spec.computation_id}",
        Outcome.FAILED if code else Outcome.DONE,
        request_id=current_request_id() or "",
        details={**details, "code": code} if code else details,
    )


def _refused(hospitals: Sequence[Identity]) -> dict[str, Detail]:
    """Whose contributions broke the round's check: all that anybody learns of them."""
    return {"refused": listed([hospital.name for hospital in hospitals])} if hospitals else {}


def _event(action: str, what: str, details: dict[str, Detail], outcome: Outcome = Outcome.DONE) -> Event:
    request_id = current_request_id() or ""
    return Event(action, current_actor(), what, outcome, request_id=request_id, details=details)
