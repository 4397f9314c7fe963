"""A process that is killed at one commit of a hospital's whole story, and does it again when asked.

`python -m tests.fakes.kill_points URL FOLDER` reads lines "SUFFIX PHASE NUMBER" and forks for each: the fork
goes through the story of the data set `chest-SUFFIX` and dies by SIGKILL just before, or just after, its
NUMBERth commit that wrote something. With NUMBER 0 it comes to the end. It answers with how the fork ended
and how many commits there were.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.exc import IntegrityError

from libs.rpc._generated.trefoil.hospital.v1 import access_pb2 as pb
from libs.rpc._generated.trefoil.types.v1.types_pb2 import PrivacyCost
from libs.rpc.caller import Caller, calling_as
from libs.rpc.identity import Identity, Kind
from services.hospital_node.access.rpc import AccessService
from services.hospital_node.adapters.transactions import Transactions
from tests.fakes.access import PRIVATE_PLAN, AccessRig, People
from tests.fakes.hospital_ports import dataset, shelve

_WRITES = ("INSERT", "UPDATE", "DELETE")


class Commits:
    """Counts the commits that wrote something, and dies at one of them."""

    def __init__(self, engine: Engine, *, phase: str, number: int) -> None:
        self.count, self._phase, self._number = 0, phase, number
        event.listen(engine, "before_cursor_execute", self._executing)
        event.listen(engine, "commit", self._committing)
        self._do_commit = engine.dialect.do_commit
        engine.dialect.do_commit = self._commit  # type: ignore[method-assign, assignment]

    def _executing(self, connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith(_WRITES):
            connection.info["wrote"] = True

    def _committing(self, connection: Any) -> None:
        if connection.info.pop("wrote", False):
            self.count += 1
            self._die_if("before")

    def _commit(self, connection: Any) -> None:
        self._do_commit(connection)
        self._die_if("after")

    def _die_if(self, phase: str) -> None:
        if self._number and (phase, self.count) == (self._phase, self._number):
            os.kill(os.getpid(), signal.SIGKILL)


async def story(rig: AccessRig, suffix: str) -> None:
    """Budget, statistics, a study, its revocation: each by the same call ids as before."""
    name = f"chest-{suffix}"
    with suppress(IntegrityError):
        await shelve(rig.datasets, dataset(name))

    async def nothing_runs() -> None:
        return None

    service = AccessService(access=rig.access, consent_changed=nothing_runs)
    await service.SetBudget(
        pb.SetBudgetRequest(
            call_id=f"budget-{suffix}", dataset_name=name, budget=PrivacyCost(epsilon="9", delta="0.001")
        ),
        None,
    )
    await _statistics(service, suffix, name)
    await _study(rig, service, suffix, name)


async def _statistics(service: AccessService, suffix: str, name: str) -> None:
    await service.CreateRequest(
        pb.CreateRequestRequest(
            request_id=f"counts-{suffix}",
            purpose=pb.PURPOSE_STATISTICS,
            dataset_name=name,
            asked=PrivacyCost(epsilon="1"),
        ),
        None,
    )
    decided = await service.DecideRequest(
        pb.DecideRequestRequest(call_id=f"yes-{suffix}", request_id=f"counts-{suffix}", approve=True), None
    )
    release = pb.ReleaseStatisticsRequest(
        call_id=f"release-{suffix}",
        dataset_name=name,
        approval_id=decided.request.approval.approval_id,
        epsilon="0.5",
    )
    first, second = [await service.ReleaseStatistics(release, None) for _ in range(2)]
    if first != second:
        raise SystemExit("a retry drew again")


async def _study(rig: AccessRig, service: AccessService, suffix: str, name: str) -> None:
    says = {"dataset_ids": [f"alpha/{name}", "beta/chest"]}
    study_id = f"study-{suffix}"
    await rig.access.plan_proposed(
        rig.people.proposal(PRIVATE_PLAN, study_id=study_id, says=says, dataset_name=name)
    )
    decided = await service.DecideRequest(
        pb.DecideRequestRequest(
            call_id=f"train-{suffix}", request_id=study_id, plan_hash=PRIVATE_PLAN.hash, approve=True
        ),
        None,
    )
    await service.RevokeApproval(
        pb.RevokeApprovalRequest(
            call_id=f"revoke-{suffix}", approval_id=decided.request.approval.approval_id
        ),
        None,
    )


def forked(work: Callable[[], int]) -> tuple[int, int]:
    """(signal, exit code) of a fork that does `work`."""
    pid = os.fork()
    if pid == 0:
        os._exit(work())
    status = os.waitpid(pid, 0)[1]
    return (os.WTERMSIG(status), 0) if os.WIFSIGNALED(status) else (0, os.WEXITSTATUS(status))


def main(url: str, folder: Path) -> None:
    """Serve until the input ends."""
    people = People(folder)
    for line in sys.stdin:
        suffix, phase, number = line.split()

        def once(suffix: str = suffix, phase: str = phase, number: str = number) -> int:
            rig = AccessRig(Transactions(url), people)
            commits = Commits(rig.transactions.engine, phase=phase, number=int(number))
            with calling_as(Caller(Identity(Kind.CLIENT, "owner"), None, "call")):
                asyncio.run(story(rig, suffix))
            return commits.count

        print("ended", *forked(once), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
