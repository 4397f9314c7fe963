"""The privacy ledger: what may be taken of a data set, what was, and the refusal of what would be too much.

Entries are never changed. A budget is an entry itself, so it is known who allowed how much from when on.
"""

from __future__ import annotations

from dataclasses import dataclass

from libs.core.errors import FailedPrecondition, NotFound
from libs.dp.budget import Spend, remaining, total, would_exceed
from libs.runtime.audit.entry import Event
from services.hospital_node.access.costs import NOTHING, budget_of, decimal_text, epsilon_text
from services.hospital_node.access.domain import Approval, LedgerEntry, LedgerKind, NewEntry
from services.hospital_node.access.ports import Unit


@dataclass(frozen=True)
class Balance:
    """Of one data set. Without a budget nothing may be taken."""

    dataset_name: str
    budget: Spend
    spent: Spend
    left: Spend


def balance(unit: Unit, dataset_name: str) -> Balance:
    """What the ledger says about a data set now."""
    budget, spends = unit.budget(dataset_name) or NOTHING, unit.spends(dataset_name=dataset_name)
    left = remaining(spends, budget_of(budget))
    return Balance(dataset_name, budget, total(spends), Spend(left.epsilon, left.delta))


def set_budget(unit: Unit, *, dataset_name: str, budget: Spend, actor: str) -> Balance:
    """What may be taken of a data set from now on, counting what was taken already. Raises NotFound."""
    if unit.dataset(dataset_name) is None:
        raise NotFound(f"No data set named {dataset_name!r} is published here. See: trefoil dataset list")
    unit.enter(NewEntry(LedgerKind.BUDGET_SET, dataset_name, actor, budget))
    unit.record(
        Event(
            action="budget.set",
            actor=actor,
            object=f"dataset/{dataset_name}",
            details={"epsilon": epsilon_text(budget.epsilon), "delta": decimal_text(budget.delta)},
        )
    )
    return balance(unit, dataset_name)


def spend(unit: Unit, line: NewEntry, *, approval: Approval) -> LedgerEntry:
    """Enter a cost, if the approval and the data set's budget have room for it. FailedPrecondition if not.

    Both are checked in the transaction that enters it: of two that race for its last, one gets it. The texts
    hold no figure, because they leave the hospital: cost and balance of a private plan follow from the exact
    number of images. The owner reads them in the request and in the ledger.
    """
    under = unit.spends(approval_id=approval.approval_id)
    if would_exceed(under, line.cost, budget_of(approval.granted)):
        raise FailedPrecondition(
            f"The approval {approval.approval_id} does not grant as much as this costs. Ask the data owner "
            "for another approval."
        )
    if would_exceed(
        unit.spends(dataset_name=line.dataset_name),
        line.cost,
        budget_of(unit.budget(line.dataset_name) or NOTHING),
    ):
        raise FailedPrecondition(_over_budget(unit, line.dataset_name))
    return unit.enter(line)


def _over_budget(unit: Unit, dataset_name: str) -> str:
    command = f"trefoil dataset budget {dataset_name}"
    if unit.budget(dataset_name) is None:
        said = f"Nobody has set a privacy budget for the data set {dataset_name}, so nothing may be taken."
    else:
        said = f"The privacy budget of the data set {dataset_name} does not allow this."
    return (
        f"{said} Its owner sees what is left with trefoil ledger show, and can set another: "
        f"{command} --epsilon E --delta D, or {command} --without-privacy."
    )
