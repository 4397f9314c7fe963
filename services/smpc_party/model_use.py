"""Who may ask a model: what was said when it was made, and what each hospital in it says now.

A prediction needs the consent of every hospital whose contribution is in the model. A hospital's own rule
for the asker stands first, then its rule for everybody, then what the training plan said. None of it is the
coordinator's word: it cannot open a round with a wider use than the contributions' terms (`domain.py`), and
rules are taken from the hospitals themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from libs.core.errors import InvalidInput, PermissionDenied
from libs.rpc.identity import Identity

MAX_RULES = 1024
"""Rules of one hospital for one model."""

MAX_ASKERS = 1024
EVERYBODY = "*"
"""The asker of a hospital's rule for all who have no rule of their own."""

MAX_COUNT = 1 << 62
_MAX_APPROVAL_ID = 128

HOW_TO_ASK = "Ask for access with `trefoil request create --purpose prediction`, or ask"


@dataclass(frozen=True)
class ModelUse:
    """Who may ask: every client, or those named; and how many predictions (images) in all, 0 for any."""

    anyone: bool = False
    askers: frozenset[Identity] = frozenset()
    max_predictions: int = 0

    def __post_init__(self) -> None:
        if len(self.askers) > MAX_ASKERS:
            raise InvalidInput(f"A model names at most {MAX_ASKERS} askers; let anyone ask, or name fewer.")
        if not 0 <= self.max_predictions <= MAX_COUNT:
            raise InvalidInput(f"max_predictions is between 0, for any number, and {MAX_COUNT}.")

    def allows(self, asker: Identity) -> bool:
        """Whether this asker is meant, whatever was counted."""
        return self.anyone or asker in self.askers

    def within(self, other: ModelUse) -> bool:
        """Whether this lets nobody ask, and nothing more often, than `other` does."""
        if not self.anyone and not self.askers:
            return True
        fewer = other.max_predictions == 0 or 0 < self.max_predictions <= other.max_predictions
        return fewer and (other.anyone or (not self.anyone and self.askers <= other.askers))

    def to_data(self) -> dict[str, Any]:
        """For canonical JSON."""
        askers = sorted(asker.uri for asker in self.askers)
        return {"anyone": self.anyone, "askers": askers, "max_predictions": self.max_predictions}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """What `to_data` gave."""
        askers = frozenset(Identity.parse(uri) for uri in data["askers"])
        return cls(data["anyone"], askers, data["max_predictions"])


NOBODY = ModelUse()


@dataclass(frozen=True)
class UseRule:
    """One hospital's word about one asker; `asker` None is everybody without a rule of his own."""

    asker: Identity | None
    allowed: bool
    max_predictions: int = 0
    expires_at_s: int = 0
    approval_id: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.max_predictions <= MAX_COUNT or not 0 <= self.expires_at_s <= MAX_COUNT:
            raise InvalidInput("A rule's numbers are 0, for no limit, or positive.")
        if len(self.approval_id) > _MAX_APPROVAL_ID:
            raise InvalidInput(f"An approval's id has at most {_MAX_APPROVAL_ID} characters.")

    def allows(self, *, now_s: float) -> bool:
        """Whether it allows at this moment, whatever was counted."""
        return self.allowed and (self.expires_at_s == 0 or now_s < self.expires_at_s)


@dataclass(frozen=True)
class HospitalRules:
    """All rules of one hospital for one model. A change has a greater revision."""

    revision: int
    rules: tuple[UseRule, ...]
    _by_asker: Mapping[Identity | None, UseRule] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 < self.revision <= MAX_COUNT:
            raise InvalidInput("The revision of a hospital's rules counts from 1.")
        if len(self.rules) > MAX_RULES:
            raise InvalidInput(f"A hospital has at most {MAX_RULES} rules for one model. Send fewer.")
        by_asker = {rule.asker: rule for rule in self.rules}
        if len(by_asker) != len(self.rules):
            raise InvalidInput("A hospital has one rule for each asker, and one for everybody else.")
        object.__setattr__(self, "_by_asker", by_asker)

    def rule_for(self, asker: Identity) -> UseRule | None:
        """His own rule, or the one for everybody. None: the hospital says nothing, so the plan counts."""
        return self._by_asker.get(asker) or self._by_asker.get(None)


@dataclass(frozen=True)
class Counter:
    """What predictions are counted under, for one model.

    A hospital's rule: its `hospital`, the rule's `asker` ("*" for everybody) and approval. Without a
    hospital: predictions that rest on the plan (no asker), and those of one asker.
    """

    hospital: str = ""
    asker: str = ""
    approval_id: str = ""

    @classmethod
    def of_rule(cls, hospital: Identity, rule: UseRule) -> Self:
        """A rule's."""
        return cls(hospital.uri, rule.asker.uri if rule.asker else EVERYBODY, rule.approval_id)

    @classmethod
    def of_asker(cls, asker: Identity) -> Self:
        """All that one asker asked."""
        return cls(asker=asker.uri)


BY_PLAN = Counter()
"""Predictions that at least one hospital leaves to the plan."""


@dataclass(frozen=True)
class Allowance:
    """What one prediction is counted under, and the most that may be counted there; 0 for any number."""

    counter: Counter
    limit: int
    granted_by: Identity | None
    """The hospital whose rule it is; None for the plan."""


def allowances(
    use: ModelUse,
    hospitals: Iterable[Identity],
    rules: Mapping[Identity, HospitalRules],
    asker: Identity,
    *,
    model_id: str,
    now_s: float,
) -> tuple[Allowance, ...]:
    """What a prediction by `asker` rests on, every hospital consenting.

    Raises `PermissionDenied` naming those that do not.
    """
    given, refusing = set[Allowance](), list[Identity]()
    in_it = sorted(hospitals, key=str)
    by_plan = Allowance(BY_PLAN, use.max_predictions, None)
    for hospital in in_it:
        own = rules.get(hospital)
        rule = own.rule_for(asker) if own else None
        if rule is None and use.allows(asker):
            given.add(by_plan)
        elif rule is not None and rule.allows(now_s=now_s):
            given.add(Allowance(Counter.of_rule(hospital, rule), rule.max_predictions, hospital))
        else:
            refusing.append(hospital)
    if refusing:
        raise PermissionDenied(_refusal(asker, model_id, refusing))
    if not in_it:
        if not use.allows(asker):
            raise PermissionDenied(
                f"{asker} may not ask model {model_id}. It was imported for others; ask its owner to import "
                "it for you too."
            )
        given.add(by_plan)
    return tuple(sorted(given, key=lambda allowance: str(allowance.counter)))


def used_up(asker: Identity, model_id: str, allowance: Allowance) -> PermissionDenied:
    """The error for a prediction beyond what was allowed."""
    whose = f"{allowance.granted_by} allowed" if allowance.granted_by else "were allowed when it was made"
    return PermissionDenied(
        f"The {allowance.limit} predictions of model {model_id} that {whose} are used up, or this one is "
        f"for more images than are left. {HOW_TO_ASK} about fewer images."
    )


def _refusal(asker: Identity, model_id: str, refusing: Iterable[Identity]) -> str:
    names = ", ".join(hospital.name for hospital in refusing)
    return (
        f"{asker} may not ask model {model_id}: that needs the consent of every hospital that it was made "
        f"at, and {names} did not give it. {HOW_TO_ASK} them."
    )


def rules_to_data(rules: HospitalRules) -> Iterator[dict[str, Any]]:
    """For the index."""
    for rule in rules.rules:
        yield {
            "asker": rule.asker.uri if rule.asker else None,
            "allowed": rule.allowed,
            "max_predictions": rule.max_predictions,
            "expires_at_s": rule.expires_at_s,
            "approval_id": rule.approval_id,
        }


def rules_from_data(revision: int, data: Iterable[Mapping[str, Any]]) -> HospitalRules:
    """What `rules_to_data` gave."""
    return HospitalRules(
        revision,
        tuple(
            UseRule(
                Identity.parse(row["asker"]) if row["asker"] else None,
                row["allowed"],
                row["max_predictions"],
                row["expires_at_s"],
                row["approval_id"],
            )
            for row in data
        ),
    )
