"""Runs rounds of secure aggregation over three party processes, and keeps what each cost."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import numpy as np
import numpy.typing as npt

from libs.cli.bench.hospitals import (
    MAX_NORM,
    SCALE_BITS,
    HospitalProcess,
    Order,
    Scene,
    Worked,
    channels_of,
    hospital_processes,
    identity_of,
    round_ref,
    terms_of,
    update_of,
)
from libs.cli.bench.machine import cpu_s, memory_bytes, reset_peak
from libs.cli.local_cluster import LinkEmulation, LocalCluster, hospital_names, layout
from libs.core.errors import Bug
from libs.core.ids import PARTIES, PartyId, new_id
from libs.fl.update_encoding import decode_vector, encode_weights
from libs.mpc.ring import Ring
from libs.rpc._generated.trefoil.party.v1 import party_pb2, party_pb2_grpc
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from libs.rpc.channel import open_channel
from libs.rpc.identity import party_identity
from libs.rpc.share_client import deal_vector, fetch_vector

if TYPE_CHECKING:
    from libs.rpc._generated.trefoil.party.v1.party_pb2_grpc import PartyServiceAsyncStub as Stub

T = TypeVar("T")
_BASE = "bench/base"
_CLOSE_S = 600.0
_CALL_S = 60.0
PARTY_STEPS = ("share_stored", "shares_added", "contributions_checked", "result_stored")
"""Events in a party's log whose `seconds` say where its time went."""


@dataclass(frozen=True)
class Load:
    """What is measured. `checks`: whether norms are checked, for one row of rounds after the other."""

    hospitals: int
    parameters: int
    processes: int
    checks: tuple[bool, ...]
    repeat: int
    warm_up: int
    link: LinkEmulation | None = None


@dataclass(frozen=True)
class Round:
    """One timed round. By party: a list of three."""

    round_s: float
    hospital_s: list[float]
    encode_s: list[float]
    party_s: float
    """From the order to close until all three committed the result."""
    steps_s: dict[str, float]
    """Of the events in the parties' logs: seconds, of all three together."""
    party_cpu_s: list[float]
    hospitals_cpu_s: float
    bytes_up: list[int]
    bytes_between_parties: int
    peak_memory_bytes: list[int | None]


@dataclass(frozen=True)
class Measured:
    """The timed rounds of one kind, and plain averaging of the same updates in this process."""

    rounds: list[Round]
    plain_s: list[float]
    max_abs_error: float


def measure(load: Load) -> dict[bool, Measured]:
    """Start the parties and the hospitals, aggregate, stop; by whether norms were checked.

    Raises what a call raises, and `ProcessDied`.
    """
    names = hospital_names(load.hospitals)
    with (
        tempfile.TemporaryDirectory(prefix="trefoil-bench-") as folder,
        LocalCluster(
            Path(folder),
            hospitals=names,
            only=layout.PARTY_NAMES,
            overrides={name: {"close_deadline_s": _CLOSE_S} for name in layout.PARTY_NAMES},
            link=load.link,
        ) as cluster,
    ):
        addresses = {party: cluster.reached_at[layout.PARTY_NAMES[party]] for party in PARTIES}
        scene = Scene(cluster.root, addresses, names, load.parameters)
        with hospital_processes(scene, processes=load.processes) as workers:
            return asyncio.run(cluster.guard(_measure(cluster, scene, workers, load)))


def plain_average(updates: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """What a server does that sees every update: numpy, float32, in place."""
    total = np.zeros_like(updates[0])
    weight = np.float32(1 / len(updates))
    for update in updates:
        total += update * weight
    return total


async def _measure(
    cluster: LocalCluster, scene: Scene, workers: list[HospitalProcess], load: Load
) -> dict[bool, Measured]:
    async with AsyncExitStack() as stack:
        stubs = [await _coordinator(stack, scene, party) for party in PARTIES]
        dealer = channels_of(scene, scene.hospitals[0])
        for channel in dealer.values():
            await stack.enter_async_context(channel)
        base = await _deal_base(stubs, scene, dealer)
        rounds: dict[bool, list[Round]] = {check: [] for check in load.checks}
        errors = {}
        number = 0
        for check in load.checks:
            for _ in range(load.warm_up + load.repeat):
                number += 1
                order = Order(number, MAX_NORM if check else 0)
                rounds[check].append(await _Driver(cluster, scene, stubs, workers, order).run())
            ref = types_pb2.VectorRef(model_id=_result(number))
            result = await fetch_vector(ref, ring=Ring.RING_32, channels=dealer)
            learnt = decode_vector(result - base, scale_bits=SCALE_BITS)
            plain_s, errors[check] = await asyncio.to_thread(_compare, load, learnt)
    return {check: Measured(rounds[check][load.warm_up :], plain_s, errors[check]) for check in load.checks}


async def _coordinator(stack: AsyncExitStack, scene: Scene, party: PartyId) -> Stub:
    channel = open_channel(
        address=scene.addresses[party],
        server=party_identity(party),
        tls=layout.tls_files(scene.root / layout.COORDINATOR),
    )
    return party_pb2_grpc.PartyServiceStub(await stack.enter_async_context(channel))


async def _deal_base(
    stubs: Sequence[Stub], scene: Scene, dealer: dict[PartyId, grpc.aio.Channel]
) -> npt.NDArray[Any]:
    """A version that every round adds its average to, as in a study; the first hospital deals it."""
    base = encode_weights(update_of(len(scene.hospitals), scene.parameters), scale_bits=SCALE_BITS)
    owner = identity_of(scene.hospitals[0]).uri
    request = party_pb2.RegisterModelRequest(
        model_id=_BASE, ring=types_pb2.RING_32, length=len(base), dealer_identity=owner
    )
    await _ask(stubs, lambda stub: stub.RegisterModel(request, timeout=_CALL_S))
    await deal_vector(base, ring=Ring.RING_32, ref=types_pb2.VectorRef(model_id=_BASE), channels=dealer)
    return base


def _compare(load: Load, learnt: npt.NDArray[np.float64]) -> tuple[list[float], float]:
    """Seconds of plain averaging, each time; the largest difference of any coordinate."""
    updates = [update_of(number, load.parameters) for number in range(load.hospitals)]
    plain_s = []
    for _ in range(load.repeat + 1):
        started_s = time.perf_counter()
        plain = plain_average(updates)
        plain_s.append(time.perf_counter() - started_s)
    return plain_s[1:], float(np.abs(learnt - plain).max())


class _Driver:
    """One round: it opens and closes as a coordinator does, and the hospital processes contribute."""

    def __init__(
        self,
        cluster: LocalCluster,
        scene: Scene,
        stubs: Sequence[Stub],
        workers: list[HospitalProcess],
        order: Order,
    ) -> None:
        self._pids = [cluster.process(name).pid for name in layout.PARTY_NAMES]
        self._logs = [cluster.process(name).log for name in layout.PARTY_NAMES]
        self._scene, self._stubs, self._workers, self._order = scene, stubs, workers, order

    async def run(self) -> Round:
        await _ask(self._stubs, lambda stub: stub.OpenRound(self._opening(), timeout=_CALL_S))
        for pid in self._pids:
            reset_peak(pid)
        logged = [log.stat().st_size for log in self._logs]
        before = [cpu_s(pid) for pid in self._pids]
        for worker in self._workers:
            worker.begin(self._order)
        worked: list[Worked] = [await asyncio.to_thread(worker.finish) for worker in self._workers]
        closing_s = time.monotonic()
        sent = await self._close()
        ended_s = time.monotonic()
        done = [contribution for worker in worked for contribution in worker.contributions]
        return Round(
            round_s=ended_s - min(contribution.begun_s for contribution in done),
            hospital_s=[contribution.ended_s - contribution.begun_s for contribution in done],
            encode_s=[contribution.encoded_s - contribution.begun_s for contribution in done],
            party_s=ended_s - closing_s,
            steps_s=_steps_s(self._logs, logged),
            party_cpu_s=[cpu_s(pid) - earlier for pid, earlier in zip(self._pids, before, strict=True)],
            hospitals_cpu_s=sum(worker.cpu_s for worker in worked),
            bytes_up=[contribution.bytes_up for contribution in done],
            bytes_between_parties=sent,
            peak_memory_bytes=[memory_bytes(pid, "VmHWM") for pid in self._pids],
        )

    def _opening(self) -> party_pb2.OpenRoundRequest:
        terms = terms_of(self._scene.hospitals, self._order)
        return party_pb2.OpenRoundRequest(
            round=round_ref(self._order.round),
            ring=types_pb2.RING_32,
            update_length=self._scene.parameters,
            metrics_length=terms.metrics_length,
            participants=[
                party_pb2.Participant(hospital_identity=hospital, weight=terms.weight)
                for hospital in terms.hospital_identities
            ],
            quorum=terms.quorum,
            base_model_id=_BASE,
            result_model_id=_result(self._order.round),
            reader_identities=terms.reader_identities,
            metrics_reader_identities=terms.metrics_reader_identities,
            check=terms.check if terms.HasField("check") else None,
        )

    async def _close(self) -> int:
        """Bytes that the parties sent to each other."""
        request = party_pb2.CloseRoundRequest(
            round=round_ref(self._order.round), computation_id=new_id("computation")
        )
        answers = await _ask(self._stubs, lambda stub: stub.CloseRound(request, timeout=_CLOSE_S))
        for answer in answers:
            if len(answer.survivor_identities) != len(self._scene.hospitals):
                raise Bug("The parties left out a contribution that nothing is wrong with.")
        return sum(answer.bytes_sent_to_peers for answer in answers)


async def _ask(stubs: Sequence[Stub], call: Callable[[Stub], Awaitable[T]]) -> list[T]:
    return await asyncio.gather(*(call(stub) for stub in stubs))


def _result(number: int) -> str:
    return f"bench/round-{number}"


def _steps_s(logs: Sequence[Path], begins: Sequence[int]) -> dict[str, float]:
    """Seconds by event of what the parties logged since their logs had these sizes."""
    seconds = dict.fromkeys(PARTY_STEPS, 0.0)
    for log, begin in zip(logs, begins, strict=True):
        with log.open("rb") as file:
            file.seek(begin)
            for line in file:
                entry = json.loads(line)
                if entry["event"] in seconds:
                    seconds[entry["event"]] += entry["seconds"]
    return seconds
