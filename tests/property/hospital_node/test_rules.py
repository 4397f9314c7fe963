"""Rules against an oracle that looks at everything, slowly."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from libs.dp.budget import UNBOUNDED, Epsilon, Spend
from services.hospital_node.access.domain import AccessRequest, Approval, Origin, Purpose, Rule
from services.hospital_node.access.rules import matches
from tests.fakes.hospital_ports import NOW

DATASETS, PLANS, PEOPLE = ("chest", "hands"), ("plan-a", "plan-b", ""), ("ada", "ben")
epsilons: st.SearchStrategy[Epsilon] = st.one_of(
    st.integers(0, 6).map(lambda halves: Fraction(halves, 2)), st.just(UNBOUNDED)
)


@st.composite
def costs(draw: st.DrawFn) -> Spend:
    epsilon = draw(epsilons)
    return Spend(epsilon) if epsilon is UNBOUNDED else Spend(epsilon, Fraction(draw(st.integers(0, 3)), 1000))


moments = st.none() | st.integers(-2, 2).map(lambda hours: NOW + timedelta(hours=hours))
some_people = st.frozensets(st.sampled_from(PEOPLE))

rules = st.builds(
    Rule,
    rule_id=st.just("rule-1"),
    purposes=st.frozensets(st.sampled_from(Purpose), min_size=1),
    dataset_names=st.frozensets(st.sampled_from(DATASETS), min_size=1),
    plan_hashes=st.frozensets(st.sampled_from(PLANS)),
    requesters=some_people,
    at_most=costs(),
    uses=st.integers(1, 4),
    until=moments,
    created_by=st.just("owner"),
    created_at=st.just(NOW),
    revoked_at=st.none() | st.just(NOW),
)
requests = st.builds(
    AccessRequest,
    request_id=st.just("request-1"),
    origin=st.just(Origin.COORDINATOR),
    purpose=st.sampled_from(Purpose),
    dataset_name=st.sampled_from(DATASETS),
    content_hash=st.just("c"),
    requester=st.sampled_from(PEOPLE),
    requested_by=st.just("anybody"),
    reason=st.just(""),
    asked=costs(),
    uses_asked=st.integers(1, 3),
    received_at=st.just(NOW),
    plan_hash=st.sampled_from(PLANS),
)
approvals = st.lists(
    st.builds(
        Approval,
        approval_id=st.just("approval-1"),
        request_id=st.just("request-0"),
        purpose=st.sampled_from(Purpose),
        dataset_name=st.sampled_from(DATASETS),
        requester=st.sampled_from(PEOPLE),
        granted=costs(),
        uses=st.integers(1, 2),
        revoked_at=moments,
    ),
    max_size=3,
)


def oracle(rule: Rule, request: AccessRequest, given_before: list[Approval]) -> bool:
    """Every way to be refused, one after the other."""
    refusals = []
    refusals.append(rule.revoked_at is not None)
    refusals.append(rule.until is not None and rule.until <= NOW)
    refusals.append(not any(purpose is request.purpose for purpose in rule.purposes))
    refusals.append(not any(name == request.dataset_name for name in rule.dataset_names))
    refusals.append(len(rule.plan_hashes) > 0 and request.plan_hash not in list(rule.plan_hashes))
    refusals.append(len(rule.requesters) > 0 and request.requester not in list(rule.requesters))
    uses, epsilon, delta, unbounded = request.uses_asked, Fraction(0), Fraction(0), False
    for cost in [request.asked, *(a.granted for a in given_before if a.requester == request.requester)]:
        unbounded = unbounded or cost.epsilon is UNBOUNDED
        epsilon += Fraction(0) if cost.epsilon is UNBOUNDED else cost.epsilon
        delta += cost.delta
    for approval in given_before:
        uses += approval.uses if approval.requester == request.requester else 0
    refusals.append(uses > rule.uses)
    if rule.at_most.epsilon is not UNBOUNDED:
        refusals.append(unbounded or epsilon > rule.at_most.epsilon or delta > rule.at_most.delta)
    return not any(refusals)


@given(rules, requests, approvals)
def test_a_rule_approves_what_the_oracle_approves(
    rule: Rule, request: AccessRequest, before: list[Approval]
) -> None:
    assert matches(rule, request, before, now=NOW) == oracle(rule, request, before)


@given(rules, requests, approvals, st.data())
def test_among_requests_that_fit_otherwise_the_limits_decide_as_in_the_oracle(
    rule: Rule, request: AccessRequest, before: list[Approval], data: st.DataObject
) -> None:
    """Drawn at random, few requests fit in everything: here all do but for the limits."""
    fitting = replace(
        request,
        purpose=data.draw(st.sampled_from(sorted(rule.purposes, key=str))),
        dataset_name=data.draw(st.sampled_from(sorted(rule.dataset_names))),
    )
    rule = replace(rule, plan_hashes=frozenset(), requesters=frozenset(), until=None, revoked_at=None)
    assert matches(rule, fitting, before, now=NOW) == oracle(rule, fitting, before)


@given(rules, requests)
def test_within_all_limits_only_who_and_what_decide_as_in_the_oracle(
    rule: Rule, request: AccessRequest
) -> None:
    rule = replace(rule, at_most=Spend(UNBOUNDED), uses=9, until=None, revoked_at=None)
    rule = replace(rule, purposes=frozenset(Purpose), dataset_names=frozenset(DATASETS))
    assert matches(rule, request, [], now=NOW) == oracle(rule, request, [])
