"""Who may send and fetch which vector, and what it has to be like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from libs.core.errors import FailedPrecondition, InvalidInput, NotFound, PermissionDenied
from libs.mpc.ring import Ring
from libs.rpc.identity import Identity
from services.smpc_party.domain import (
    ROUND_TABLE,
    RoundEvent,
    RoundKey,
    RoundState,
    StoredShare,
    check_same_upload,
    move,
)
from services.smpc_party.ports import Rounds
from services.smpc_party.vectors import ContributionVector, MetricsVector, ModelVector, Upload, Vector


@dataclass(frozen=True)
class Target:
    """Where an upload goes."""

    what: str
    context: str
    ring: Ring
    length: int
    stored_upload_id: str | None
    store: Callable[[str, StoredShare], bool]


class VectorAccess:
    """Looks vectors up. Methods block."""

    def __init__(self, rounds: Rounds) -> None:
        self._rounds = rounds

    def target(self, upload: Upload, caller: Identity) -> Target:
        """Where the upload goes. Raises as `ShareDesk.put` does before anything is sent."""
        match upload.vector:
            case ModelVector(model_id):
                target = self._model_target(upload, model_id, caller)
            case ContributionVector(key, attempt):
                target = self._contribution_target(upload, key, attempt, caller)
            case MetricsVector():
                raise InvalidInput("The metrics of a round are computed by the parties; nobody uploads them.")
        if target.stored_upload_id is None and (upload.ring, upload.length) != (target.ring, target.length):
            raise InvalidInput(
                f"{target.what} takes {target.length} elements of {target.ring.bits} bits, "
                f"not {upload.length} of {upload.ring.bits}. Check the training plan and its version."
            )
        return target

    def _model_target(self, upload: Upload, model_id: str, caller: Identity) -> Target:
        record = self._rounds.model(model_id)
        if record.spec.dealer != caller:
            raise PermissionDenied(f"Model {model_id} is not {caller}'s to deal.")
        return Target(
            f"Model {model_id}",
            record.spec.context,
            record.spec.ring,
            record.spec.length,
            _same(record.upload_id, upload.upload_id, what=f"Model {model_id}"),
            lambda upload_id, share: self._rounds.put_model_share(model_id, upload_id, share),
        )

    def _contribution_target(self, upload: Upload, key: RoundKey, attempt: int, caller: Identity) -> Target:
        record = self._rounds.round(key)
        if caller not in {participant.hospital for participant in record.spec.participants}:
            raise PermissionDenied(f"{caller} does not take part in {key}.")
        record.spec.check_attempt(attempt)
        if upload.terms is None:
            raise InvalidInput("A contribution comes with the terms that its hospital's owner approved.")
        record.spec.check_terms(caller, upload.terms)
        what = f"The contribution of {caller} to {key}"
        held = {c.hospital: c.upload_id for c in self._rounds.contributions(key)}
        stored = _same(held.get(caller), upload.upload_id, what=what)
        if stored is None:
            move(ROUND_TABLE, record.state, RoundEvent.CONTRIBUTE, what=f"The {key}")
        return Target(
            what,
            record.spec.contribution_context(caller),
            record.spec.ring,
            record.spec.length,
            stored,
            lambda upload_id, share: self._rounds.put_contribution(record.spec, caller, upload_id, share),
        )

    def readable(self, vector: Vector, caller: Identity) -> StoredShare:
        """The share that the caller is about to get; the audit trail says so. Raises as `ShareDesk.get`."""
        match vector:
            case ModelVector(model_id):
                record = self._rounds.model(model_id)
                _check_reader(caller, record.spec.readers, what=f"model {model_id}")
                if record.share is None:
                    raise FailedPrecondition(
                        f"Model {model_id} was not dealt to this party yet. Deal it first."
                    )
                self._rounds.share_fetched(f"model {model_id}")
                return record.share
            case MetricsVector(key):
                return self._metrics(key, caller)
            case ContributionVector():
                raise PermissionDenied("A contribution cannot be fetched, by nobody; only its sum can be.")

    def _metrics(self, key: RoundKey, caller: Identity) -> StoredShare:
        record = self._rounds.round(key)
        _check_reader(caller, record.spec.metrics_readers, what=f"the metrics of {key}")
        if record.state is not RoundState.CLOSED or record.prepared is None:
            raise FailedPrecondition(f"The {key} is not closed yet. Ask again afterwards.")
        if record.prepared.metrics is None:
            raise NotFound(f"The {key} has no metrics.")
        self._rounds.share_fetched(f"metrics of {key}")
        return record.prepared.metrics


def _same(stored: str | None, offered: str, *, what: str) -> str | None:
    """The stored upload, which must be the offered one if there is any."""
    if stored is not None:
        check_same_upload(stored, offered, what=what)
    return stored


def _check_reader(caller: Identity, readers: frozenset[Identity], *, what: str) -> None:
    if caller not in readers:
        raise PermissionDenied(f"{caller} may not fetch {what}. Its readers were named when it was made.")
