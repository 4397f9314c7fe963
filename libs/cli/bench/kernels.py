"""The kernels that predictions are made of, each alone, in this process."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch

from libs.cli.bench.profile import ROLES, StepClock, timed
from libs.core.ids import PartyId
from libs.mpc.kernels import fused
from libs.mpc.kernels.linear import ConvolutionShape, conv2d, linear
from libs.mpc.kernels.tables import join_tables
from libs.mpc.lockstep import run_lockstep
from libs.mpc.prg import PairKey, Prg, random_ring
from libs.mpc.program import Program
from libs.mpc.ring import Ring, RingArray
from libs.mpc.schemes.masked.relu import ReluShape, deal_relu, prepare_relu, relu
from libs.mpc.schemes.masked.roles import Evaluator
from libs.mpc.schemes.masked.tape import DealerTape, EvaluatorTape

VALUES = 1 << 20
SIDE = 512
_PRG_BYTES = 1 << 26
_CHANNELS, _PIXELS = 64, 56
_BLOCKS = 4
_LOW = 9


@dataclass(frozen=True)
class Primitive:
    """One thing that was timed. `amount` of `unit` is what one run does."""

    name: str
    seconds: list[float]
    amount: float
    unit: str

    @property
    def median_s(self) -> float:
        """Of one run."""
        return median(self.seconds)

    @property
    def per_second(self) -> float:
        """How much of `unit` in a second."""
        return self.amount / self.median_s


def time_kernels(*, repeat: int, threads: int) -> Iterator[Primitive]:
    """One after the other, each warmed up by one run."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        prg = Prg(secrets.token_bytes(16))
        yield _timed("prg", lambda: prg.array((_PRG_BYTES,), np.uint8), _PRG_BYTES, "byte", repeat)
        for ring in Ring:
            yield from _products(ring, repeat)
        yield from _comparison(repeat)
        yield from _relu(repeat)
    finally:
        torch.set_num_threads(before)


def _timed(name: str, work: Callable[[], Any], amount: float, unit: str, repeat: int) -> Primitive:
    work()
    seconds = []
    for _ in range(repeat):
        started_s = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started_s)
    return Primitive(name, seconds, amount, unit)


def _products(ring: Ring, repeat: int) -> Iterator[Primitive]:
    left, right = random_ring((SIDE, SIDE), ring), random_ring((SIDE, SIDE), ring)
    yield _timed(f"ring_matmul_{ring.bits}", lambda: linear(left, right), SIDE**3, "product", repeat)
    x = random_ring((1, _CHANNELS, _PIXELS, _PIXELS), ring)
    weight = random_ring((_CHANNELS, _CHANNELS, 3, 3), ring)
    shape = ConvolutionShape(padding=(1, 1))
    products = weight.size * _PIXELS**2
    yield _timed(f"ring_conv_{ring.bits}", lambda: conv2d(x, weight, shape), products, "product", repeat)


def _comparison(repeat: int) -> Iterator[Primitive]:
    """The three kernels of the online ReLU in the 32-bit ring, for one evaluator."""
    prg, tables, ring = Prg(secrets.token_bytes(16)), join_tables(_BLOCKS), Ring.RING_32
    m, dealt = prg.ring((VALUES,), ring), prg.ring((5, VALUES), ring)
    onehot, masks = prg.array((_BLOCKS, VALUES), "<u2"), prg.array((VALUES,), "<u2")
    products = prg.array((VALUES,), tables.product_dtype)
    planes, top = fused.compare_blocks(m, onehot, masks, low=_LOW, blocks=_BLOCKS)
    signs = fused.join_blocks(planes, top, masks, products, tables=tables, lead=True)
    kernels: dict[str, Callable[[], Any]] = {
        "compare": lambda: fused.compare_blocks(m, onehot, masks, low=_LOW, blocks=_BLOCKS),
        "join": lambda: fused.join_blocks(planes, top, masks, products, tables=tables, lead=True),
        "select": lambda: fused.select(m, signs, dealt, multiplier=1, shift=12, lead=True),
    }
    for name, kernel in kernels.items():
        yield _timed(name, kernel, VALUES, "value", repeat)


def _relu(repeat: int) -> Iterator[Primitive]:
    """Everything that each role computes for a ReLU with rescaling, messages delivered at once."""
    keys = {party: secrets.token_bytes(32) for party in (ROLES.first, ROLES.second)}
    runs = [_one_relu(keys, f"relu-{number}") for number in range(repeat + 1)][1:]
    for phase, name in enumerate(("relu_deal", "relu_prepare", "relu_online")):
        yield Primitive(name, [run[phase] for run in runs], VALUES, "value")


def _one_relu(keys: Mapping[PartyId, bytes], computation: str) -> tuple[float, float, float]:
    """Seconds of the dealer, and of the slower evaluator before and with the input."""
    ring = Ring.RING_32
    shape = ReluShape(multiplier=1, shift=12, window_low=_LOW, window_bits=4 * _BLOCKS, ring=ring)
    halves = {me: random_ring((VALUES,), ring) for me in keys}
    mask = halves[ROLES.first] + halves[ROLES.second]
    tape = DealerTape(*(PairKey(key).for_computation(computation) for key in keys.values()))
    started_s = time.perf_counter()
    deal_relu(tape, "relu", mask, shape)
    corrections = tape.take_all()
    deal_s = time.perf_counter() - started_s
    m = random_ring((VALUES,), ring)
    programs: dict[PartyId, Program[RingArray]] = {}
    clocks = {me: StepClock() for me in keys}
    prepare_s = []
    for me, key in keys.items():
        evaluator = Evaluator.of(me, ROLES, PairKey(key).for_computation(computation))
        reader = EvaluatorTape(evaluator.masks, lead=evaluator.lead)
        started_s = time.perf_counter()
        if not evaluator.lead:
            reader.supply(corrections)
        material = prepare_relu(reader, "relu", halves[me], shape)
        prepare_s.append(time.perf_counter() - started_s)
        programs[me] = timed(relu(evaluator, "relu", m, material, shape), clocks[me])
    run_lockstep(programs)
    return deal_s, max(prepare_s), max(sum(clock.seconds.values()) for clock in clocks.values())
