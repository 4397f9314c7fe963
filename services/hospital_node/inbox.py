"""Where each of the coordinator's messages goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from libs.core.ids import PartyId
from services.hospital_node.access.service import Access
from services.hospital_node.access.statements import Asked, Proposal
from services.hospital_node.domain import Order, TaskKey
from services.hospital_node.tasks import TaskRunner


class NodeInbox:
    """Implements `link.Inbox`."""

    def __init__(
        self,
        *,
        access: Access,
        tasks: TaskRunner,
        name_parties: Callable[[Mapping[PartyId, str]], None],
    ) -> None:
        self._access, self._tasks, self._name_parties = access, tasks, name_parties

    def parties_named(self, addresses: Mapping[PartyId, str]) -> None:
        """Where the three parties are from now on."""
        self._name_parties(addresses)

    async def plan_proposed(self, proposal: Proposal) -> None:
        """For a rule or the owner to decide, or under an approval already."""
        await self._access.plan_proposed(proposal)

    async def access_asked(self, asked: Asked) -> None:
        """For a rule or the owner to decide."""
        await self._access.access_asked(asked)

    def ordered(self, order: Order) -> None:
        """To be checked and carried out."""
        self._tasks.accept(order)

    async def contribution_refused(self, key: TaskKey) -> None:
        """To be remembered."""
        await self._tasks.refused(key)

    async def study_ended(self, study_id: str) -> None:
        """No order is obeyed any more, what runs is stopped, and what was kept is deleted."""
        await self._access.study_ended(study_id)
        await self._tasks.study_ended(study_id)
