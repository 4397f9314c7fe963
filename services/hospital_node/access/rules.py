"""Rules: what the owner approves before it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from libs.core.errors import InvalidInput, NotFound
from libs.core.ids import new_id
from libs.dp.budget import total
from libs.runtime.audit.entry import Detail, Event
from services.hospital_node.access.costs import covers, decimal_text, epsilon_text
from services.hospital_node.access.domain import AccessRequest, Approval, Rule
from services.hospital_node.access.ports import Unit

MAX_USES = 1_000_000


def matches(rule: Rule, request: AccessRequest, given: Sequence[Approval], *, now: datetime) -> bool:
    """Whether the rule approves the request, after the approvals that it gave before.

    What it granted to the same requester counts whatever became of it: revoked or unused, it was granted.
    """
    if rule.revoked_at is not None or (rule.until is not None and now >= rule.until):
        return False
    if request.purpose not in rule.purposes or request.dataset_name not in rule.dataset_names:
        return False
    if rule.plan_hashes and request.plan_hash not in rule.plan_hashes:
        return False
    if rule.requesters and request.requester not in rule.requesters:
        return False
    own = [approval for approval in given if approval.requester == request.requester]
    if sum(approval.uses for approval in own) + request.uses_asked > rule.uses:
        return False
    return covers(rule.at_most, total([*(approval.granted for approval in own), request.asked]))


def matching_rule(unit: Unit, request: AccessRequest) -> Rule | None:
    """The oldest rule that approves the request."""
    for rule in unit.rules():
        if matches(rule, request, unit.approvals_by(rule_id=rule.rule_id), now=unit.now):
            return rule
    return None


def add_rule(unit: Unit, rule: Rule) -> Rule:
    """Keep it under a new id. InvalidInput for a rule that says too little or can approve nothing."""
    if not rule.purposes or not rule.dataset_names:
        raise InvalidInput("A rule names the purposes and the data sets that it is for.")
    if not 1 <= rule.uses <= MAX_USES:
        raise InvalidInput(f"A rule says how many uses it gives to one requester: 1 to {MAX_USES}.")
    if rule.until is not None and rule.until <= unit.now:
        raise InvalidInput("A rule ends in the future.")
    missing = [name for name in sorted(rule.dataset_names) if unit.dataset(name) is None]
    if missing:
        raise NotFound(f"No data set named {missing[0]!r} is published here. See: trefoil dataset list")
    kept = replace(rule, rule_id=new_id("rule"), created_at=unit.now, revoked_at=None)
    unit.put_rule(kept)
    details: dict[str, Detail] = {
        "purposes": ",".join(sorted(purpose.value for purpose in kept.purposes)),
        "epsilon": epsilon_text(kept.at_most.epsilon),
        "delta": decimal_text(kept.at_most.delta),
        "uses": kept.uses,
        "datasets": len(kept.dataset_names),
        "plans": len(kept.plan_hashes),
        "requesters": len(kept.requesters),
    }
    unit.record(Event("rule.added", kept.created_by, f"rule/{kept.rule_id}", details=details))
    return kept


def revoke_rule(unit: Unit, rule_id: str, *, actor: str) -> Rule:
    """It approves nothing from now on. Raises NotFound; once is enough."""
    rule = unit.rule(rule_id)
    if rule is None:
        raise NotFound(f"There is no rule {rule_id!r} here. See: trefoil rule list")
    if rule.revoked_at is None:
        rule = replace(rule, revoked_at=unit.now)
        unit.put_rule(rule)
        unit.record(Event("rule.revoked", actor, f"rule/{rule_id}"))
    return rule
