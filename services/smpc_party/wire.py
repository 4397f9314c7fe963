"""From messages to the domain's types. Whatever passes here is well-formed; `InvalidInput` says why not."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from libs.core.errors import InvalidInput
from libs.core.ids import PartyId
from libs.mpc.prg import SEED_BYTES
from libs.mpc.ring import Ring
from libs.mpc.schemes.masked.roles import Roles
from libs.rpc._generated.trefoil.party.v1 import party_pb2
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from libs.rpc.identity import Identity
from libs.secure_nn.plan import Plan
from services.smpc_party.domain import (
    ModelSpec,
    Participant,
    PredictionSpec,
    RoundKey,
    RoundSpec,
    Terms,
    check_plain_id,
)
from services.smpc_party.limits import PredictionLimits
from services.smpc_party.model_use import EVERYBODY, HospitalRules, ModelUse, UseRule
from services.smpc_party.pool import ShelfLevel
from services.smpc_party.vectors import ContributionVector, MetricsVector, ModelVector, Upload, Vector

_RINGS = {types_pb2.RING_32: Ring.RING_32, types_pb2.RING_64: Ring.RING_64}
RING_CODES = {ring: code for code, ring in _RINGS.items()}
_SHA256_BYTES = 32


def model_spec(request: party_pb2.RegisterModelRequest, *, limits: PredictionLimits) -> ModelSpec:
    """A model that its owner will deal. Its plan, if any, must fit ring, length and `limits`."""
    spec = ModelSpec(
        model_id=request.model_id,
        ring=_ring(request.ring),
        length=request.length,
        dealer=Identity.parse(request.dealer_identity),
        readers=_identities(request.reader_identities),
        plan=request.plan,
        use=_use(request.use),
    )
    _check_plan(spec.plan, ring=spec.ring, length=spec.length, limits=limits)
    return spec


def round_spec(request: party_pb2.OpenRoundRequest, *, limits: PredictionLimits) -> RoundSpec:
    """A round. The plan of its result, if any, must fit ring, length and `limits`."""
    spec = RoundSpec(
        key=round_key(request.round),
        ring=_ring(request.ring),
        update_length=request.update_length,
        metrics_length=request.metrics_length,
        participants=tuple(
            Participant(Identity.parse(p.hospital_identity), _fraction(p.weight))
            for p in request.participants
        ),
        quorum=request.quorum,
        base_model_id=request.base_model_id,
        result_model_id=request.result_model_id,
        readers=_identities(request.reader_identities),
        metrics_readers=_identities(request.metrics_reader_identities),
        plan=request.plan,
        use=_use(request.use),
        attempt=request.round.attempt,
        max_norm=request.check.max_norm,
        noise_std=request.noise.std,
        same=request.check.same,
    )
    _check_plan(spec.plan, ring=spec.ring, length=spec.update_length, limits=limits)
    return spec


def round_key(ref: types_pb2.RoundRef) -> RoundKey:
    """Which round of which study."""
    return RoundKey(ref.study_id, ref.round)


def prediction_spec(request: party_pb2.OpenPredictionRequest) -> PredictionSpec:
    """One assignment of the coordinator."""
    return PredictionSpec(
        computation_id=request.computation_id,
        model_id=request.model_id,
        batch=request.batch,
        roles=Roles(
            PartyId(request.dealer), PartyId(request.first_evaluator), PartyId(request.second_evaluator)
        ),
        client=Identity.parse(request.client_identity),
        deadline_s=request.deadline_s,
    )


def hospital_rules(request: party_pb2.SetModelUseRequest) -> HospitalRules:
    """One hospital's rules for a model."""
    return HospitalRules(
        request.revision,
        tuple(
            UseRule(
                None if rule.asker_identity == EVERYBODY else Identity.parse(rule.asker_identity),
                rule.allowed,
                rule.max_predictions,
                rule.expires_at_s,
                rule.approval_id,
            )
            for rule in request.rules
        ),
    )


def shelf_message(level: ShelfLevel) -> party_pb2.PoolShelf:
    """One shelf of the pool."""
    roles, count = level.shelf.roles, level.count
    return party_pb2.PoolShelf(
        model_id=level.shelf.model_id,
        batch=level.shelf.batch,
        dealer=roles.dealer,
        first_evaluator=roles.first,
        second_evaluator=roles.second,
        ready=level.ready,
        made=count.made,
        taken=count.taken,
        burned=count.burned,
        oldest_age_s=level.oldest_age_s,
        made_per_s=count.made / count.making_s if count.making_s else 0.0,
        stored_bytes=level.stored_bytes,
    )


def computation_id(text: str) -> str:
    """A computation id that may go into frames and logs."""
    check_plain_id(text, what="computation")
    return text


def upload(header: types_pb2.ShareHeader) -> Upload:
    """The header of an upload."""
    check_plain_id(header.upload_id, what="upload")
    form = header.WhichOneof("form")
    if form == "seed" and len(header.seed) != SEED_BYTES:
        raise InvalidInput(f"A share's seed has {SEED_BYTES} bytes.")
    if form == "vector_sha256" and len(header.vector_sha256) != _SHA256_BYTES:
        raise InvalidInput(f"A SHA-256 has {_SHA256_BYTES} bytes.")
    if form is None:
        raise InvalidInput("A share is sent as a seed, or as a vector whose SHA-256 comes first.")
    if form == "seed" and header.offset:
        raise InvalidInput("A share sent as a seed is sent as a whole; its offset is 0.")
    return Upload(
        upload_id=header.upload_id,
        vector=vector(header.vector),
        ring=_ring(header.ring),
        length=header.length,
        seed=header.seed if form == "seed" else None,
        sha256=header.vector_sha256,
        terms=_terms(header.terms) if header.HasField("terms") else None,
        offset=header.offset,
    )


def vector(ref: types_pb2.VectorRef) -> Vector:
    """Which vector is meant."""
    match ref.WhichOneof("vector"):
        case "model_id":
            return ModelVector(ref.model_id)
        case "metrics":
            return MetricsVector(round_key(ref.metrics))
        case "contribution":
            return ContributionVector(round_key(ref.contribution), ref.contribution.attempt)
        case _:
            raise InvalidInput("The request does not say which vector it means.")


def _ring(code: types_pb2.Ring.ValueType) -> Ring:
    try:
        return _RINGS[code]
    except KeyError:
        raise InvalidInput("The ring is RING_32 or RING_64.") from None


def _fraction(fraction: types_pb2.Fraction) -> Fraction:
    if fraction.denominator == 0:
        raise InvalidInput("A weight's denominator is zero.")
    return Fraction(fraction.numerator, fraction.denominator)


def _terms(message: types_pb2.ContributionTerms) -> Terms:
    return Terms(
        quorum=message.quorum,
        hospitals=_identities(message.hospital_identities),
        readers=_identities(message.reader_identities),
        metrics_readers=_identities(message.metrics_reader_identities),
        use=_use(message.use),
        weight=_fraction(message.weight),
        metrics_length=message.metrics_length,
        compiled_plan_hash=message.compiled_plan_hash,
        result_model_id=message.result_model_id,
        max_norm=message.check.max_norm,
        noise_std=message.noise.std,
        same=message.check.same,
    )


def _use(message: types_pb2.ModelUse) -> ModelUse:
    """A message that is missing has no askers: nobody."""
    return ModelUse(message.anyone, _identities(message.asker_identities), message.max_predictions)


def _identities(uris: Iterable[str]) -> frozenset[Identity]:
    return frozenset(Identity.parse(uri) for uri in uris)


def _check_plan(data: bytes, *, ring: Ring, length: int, limits: PredictionLimits) -> None:
    """Refuse now what could only fail at the first prediction."""
    if not data:
        return
    plan = Plan.from_json(data)
    if (plan.ring, plan.parameter_length) != (ring, length):
        raise InvalidInput(
            f"The plan takes {plan.parameter_length} parameters of {plan.ring.bits} bits, "
            f"not {length} of {ring.bits}."
        )
    limits.check_plan(plan)
