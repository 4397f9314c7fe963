"""The hospitals of `trefoil bench aggregate`: a process encodes and uploads for several of them, one by one.

They do what a node and its worker do with an update that was trained: encode it, split it, send the shares
to the three parties with a certificate of their own.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
import numpy.typing as npt

from libs.cli.local_cluster import layout
from libs.core.ids import PARTIES, PartyId
from libs.fl.metrics import METRICS_LENGTH
from libs.fl.update_encoding import encode_update
from libs.mpc.ring import Ring
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from libs.rpc.channel import open_channel
from libs.rpc.identity import Identity, Kind, party_identity
from libs.rpc.share_client import deal_vector

STUDY = "bench"
SCALE_BITS = 20
UPDATE_BOUND = 256.0
NORM = 4.0
"""L2 norm of every made-up update; what trained ones have."""
MAX_NORM = int(2 * NORM) << SCALE_BITS
"""Of the check, in ring units."""

_STOP_S = 10.0


@dataclass(frozen=True)
class Scene:
    """What all hospitals know: where the parties are, and how long an update is."""

    root: Path
    addresses: Mapping[PartyId, str]
    hospitals: tuple[str, ...]
    parameters: int


@dataclass(frozen=True)
class Order:
    """Contribute to one round. `max_norm`: in ring units; 0 without a check."""

    round: int
    max_norm: int


@dataclass(frozen=True)
class Contributed:
    """One hospital's contribution. `begun_s` and `ended_s` by the machine's monotonic clock, which all
    processes share; `bytes_up` of all its messages to the three parties.
    """

    begun_s: float
    encoded_s: float
    ended_s: float
    bytes_up: int


@dataclass(frozen=True)
class Worked:
    """What one process did for a round."""

    contributions: list[Contributed]
    cpu_s: float


def update_of(number: int, parameters: int) -> npt.NDArray[np.float32]:
    """The made-up update of the hospital of this number. Shape (parameters,)."""
    drawn = np.random.default_rng(number).standard_normal(parameters, dtype=np.float32)
    return drawn * np.float32(NORM / parameters**0.5)


def identity_of(name: str) -> Identity:
    """A hospital's identity."""
    return Identity(Kind.HOSPITAL, name)


def round_ref(number: int) -> types_pb2.RoundRef:
    """A round of the bench's study."""
    return types_pb2.RoundRef(study_id=STUDY, round=number)


def terms_of(hospitals: Sequence[str], order: Order) -> types_pb2.ContributionTerms:
    """What every hospital requires; the opened round is exactly that."""
    everybody = [identity_of(name).uri for name in hospitals]
    return types_pb2.ContributionTerms(
        quorum=len(hospitals),
        hospital_identities=everybody,
        reader_identities=everybody,
        metrics_reader_identities=everybody,
        weight=types_pb2.Fraction(numerator=1, denominator=len(hospitals)),
        metrics_length=METRICS_LENGTH,
        check=types_pb2.ContributionCheck(max_norm=order.max_norm) if order.max_norm else None,
    )


def channels_of(scene: Scene, name: str) -> dict[PartyId, grpc.aio.Channel]:
    """A hospital's channels to the three parties."""
    home = scene.root / f"hospital-{name}"
    tls, token = layout.tls_files(home), home / "keys" / "worker.token"
    return {
        party: open_channel(
            address=scene.addresses[party], server=party_identity(party), tls=tls, token_file=token
        )
        for party in PARTIES
    }


class HospitalProcess:
    """A process that plays the hospitals of these numbers."""

    def __init__(self, scene: Scene, numbers: Sequence[int]) -> None:
        spawn = multiprocessing.get_context("spawn")  # gRPC does not survive a fork
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(scene, tuple(numbers), theirs), daemon=True)
        self._process.start()
        theirs.close()

    def wait_ready(self) -> None:
        """Until it has drawn its updates. Raises EOFError when it ended instead."""
        self._pipe.recv()

    def begin(self, order: Order) -> None:
        """Have all its hospitals contribute."""
        self._pipe.send(order)

    def finish(self) -> Worked:
        """What it did. Raises what a contribution raised."""
        result = self._pipe.recv()
        if isinstance(result, BaseException):
            raise result
        assert isinstance(result, Worked)
        return result

    def stop(self) -> None:
        """End it."""
        self._pipe.close()
        self._process.join(_STOP_S)
        self._process.kill()


@contextmanager
def hospital_processes(scene: Scene, *, processes: int) -> Iterator[list[HospitalProcess]]:
    """So many processes that share all hospitals among them, ready to contribute."""
    count = len(scene.hospitals)
    workers = [HospitalProcess(scene, range(first, count, processes)) for first in range(processes)]
    try:
        for worker in workers:
            worker.wait_ready()
        yield workers
    finally:
        for worker in workers:
            worker.stop()


def _serve(scene: Scene, numbers: tuple[int, ...], pipe: Connection) -> None:
    asyncio.run(_follow(scene, numbers, pipe))


async def _follow(scene: Scene, numbers: tuple[int, ...], pipe: Connection) -> None:
    hospitals = [_Hospital(scene, number) for number in numbers]
    pipe.send("ready")
    while True:
        try:
            order: Order = await asyncio.to_thread(pipe.recv)
        except (EOFError, ConnectionResetError):  # the driver is done, or gone
            break
        started_s = time.process_time()
        try:
            done = [await hospital.contribute(order) for hospital in hospitals]
            pipe.send(Worked(done, time.process_time() - started_s))
        except Exception as error:  # the driver raises it
            pipe.send(error)
    for hospital in hospitals:
        await hospital.close()


class _Hospital:
    def __init__(self, scene: Scene, number: int) -> None:
        self._scene, self._update = scene, update_of(number, scene.parameters)
        self._bytes_up = 0
        channels = channels_of(scene, scene.hospitals[number])
        self._channels = {
            party: cast(grpc.aio.Channel, _Counted(channel, self._count))
            for party, channel in channels.items()
        }

    async def contribute(self, order: Order) -> Contributed:
        begun_s, self._bytes_up = time.monotonic(), 0
        contribution = await asyncio.to_thread(self._encode)
        encoded_s = time.monotonic()
        await deal_vector(
            contribution,
            ring=Ring.RING_32,
            ref=types_pb2.VectorRef(contribution=round_ref(order.round)),
            channels=self._channels,
            terms=terms_of(self._scene.hospitals, order),
        )
        return Contributed(begun_s, encoded_s, time.monotonic(), self._bytes_up)

    def _encode(self) -> npt.NDArray[np.uint32]:
        weight = Fraction(1, len(self._scene.hospitals))
        update = encode_update(self._update, weight=weight, scale_bits=SCALE_BITS, bound=UPDATE_BOUND)
        return np.concatenate([update, np.zeros(METRICS_LENGTH, dtype=np.uint32)])

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()

    def _count(self, size: int) -> None:
        self._bytes_up += size


class _Counted:
    """A channel that tells how many bytes each message of an upload has."""

    def __init__(self, channel: grpc.aio.Channel, tell: Callable[[int], None]) -> None:
        self._channel, self._tell = channel, tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def stream_unary(self, method: str, *, request_serializer: Callable[[Any], bytes], **more: Any) -> Any:
        def counted(message: Any) -> bytes:
            data = request_serializer(message)
            self._tell(len(data))
            return data

        return self._channel.stream_unary(method, request_serializer=counted, **more)
