"""Each strategy's arithmetic against its paper's, and what it is for."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import nn

from libs.core.errors import FailedPrecondition, InvalidInput
from libs.data.imageset import ImageSet
from libs.data.partition import partition_patients
from libs.data.phantom import make_phantoms
from libs.fl.simulate import Contribution, simulate
from libs.fl.strategies.fedavg import FedAvg
from libs.fl.strategies.fedbn import FedBN
from libs.fl.strategies.fedprox import FedProx
from libs.fl.strategies.registry import strategy_of
from libs.fl.strategies.scaffold import Scaffold
from libs.fl.strategies.strategy import Layout, Opened, OwnState, Slot, Start, Strategy
from libs.fl.strategy_parameters import Strategy as Name
from libs.fl.update_encoding import decode_vector
from libs.fl.vectorise import layout_of, slots_of, state_vector
from libs.fl.versions import Reader, first_module, first_version, read_versions, version_length
from libs.mpc.ring import RingArray
from tests.fakes.strategy_plans import plan_with

ALL_TRAINED = Layout(trained=np.array([True]), batch_norm=np.array([False]))


@pytest.fixture(scope="module")
def hospitals() -> Mapping[str, ImageSet]:
    parts = partition_patients(make_phantoms(90, size=28, seed=0), hospitals=3, seed=0)
    return dict(zip(["alpha", "beta", "gamma"], parts, strict=True))


# ------------------------------------------------------------ server optimisers


@pytest.mark.parametrize("name", [Name.FEDADAM, Name.FEDYOGI])
def test_a_server_optimiser_is_the_papers_in_plain_arithmetic(name: Name) -> None:
    plan = plan_with(name, server_optimizer={"learning_rate": 0.1, "beta_1": 0.8, "beta_2": 0.9, "tau": 0.01})
    strategy = strategy_of(plan)
    layout = Layout(trained=np.array([True, False]), batch_norm=np.array([False, True]))
    changes = [0.3, -0.2, 0.05, 0.0]
    opened = strategy.open(None, np.array([1.0, 1.0]), layout)
    x, m, v, version = 1.0, 0.0, 0.01**2, 1.0
    for delta in changes:
        version += delta
        opened = strategy.open(opened, np.array([version, version]), layout)
        m = 0.8 * m + 0.2 * delta
        square = delta * delta
        if name is Name.FEDADAM:
            v = 0.9 * v + 0.1 * square
        else:
            v = v - 0.1 * square * ((v > square) - (v < square))
        x += 0.1 * m / (math.sqrt(v) + 0.01)
        assert opened.weights[0] == pytest.approx(x, rel=1e-9)
        assert opened.weights[1] == pytest.approx(version, rel=1e-12)  # statistics take the mean itself


@pytest.mark.parametrize("name", [Name.FEDADAM, Name.FEDYOGI])
def test_replaying_from_the_middle_gives_the_same_bits_and_gaps_are_refused(
    name: Name, hospitals: Mapping[str, ImageSet]
) -> None:
    plan = plan_with(name)
    versions = simulate(plan, hospitals).versions
    half = Reader(plan)
    for number in (0, 1):
        half.read(versions[number], round_number=number)
    resumed = Reader(plan, opened=half.opened)
    for number in (2, 3):
        resumed.read(versions[number], round_number=number)
    assert np.array_equal(resumed.opened.weights, read_versions(plan, versions))
    assert not np.array_equal(resumed.opened.weights, decode_vector(versions[3], scale_bits=plan.scale_bits))
    with pytest.raises(InvalidInput, match="version 2 comes before 3"):
        Reader(plan, opened=half.opened).read(versions[3], round_number=3)


# ------------------------------------------------------------ local rules


class _Number(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))


def _descend(
    strategy: Strategy, opened: Opened, own: OwnState | None, *, slope: float, goal: float
) -> tuple[np.ndarray, OwnState | None]:
    """Ten steps on slope / 2 (w - goal)^2 as the strategy has it; (contribution, own state)."""
    start = Start(opened=opened, own=own, layout=ALL_TRAINED, learning_rate=0.1, last_round=False)
    module = _Number()
    before = strategy.start_weights(start).astype(np.float32)
    module.w.data[:] = float(before[0])
    correct = strategy.correction(start, (Slot(module.w, 0),))
    for _ in range(10):
        module.w.grad = slope * (module.w.detach() - goal)
        if correct is not None:
            correct()
        module.w.data -= 0.1 * module.w.grad
    finished = strategy.finish(start, (module.w.detach().numpy() - before), steps=10)
    return np.asarray(finished.update, np.float64), finished.own


def _federate(strategy: Strategy, rounds: int) -> float:
    """Two hospitals of the same size with losses of other slopes and goals; where they end together."""
    version = np.zeros(strategy.vectors)
    own: list[OwnState | None] = [None, None]
    for _ in range(rounds):
        opened = strategy.open(None, version, ALL_TRAINED)
        first, own[0] = _descend(strategy, opened, own[0], slope=1.0, goal=0.0)
        second, own[1] = _descend(strategy, opened, own[1], slope=4.0, goal=1.0)
        version = version + (first + second) / 2
    return float(version[0])


def test_scaffold_ends_where_the_joint_loss_is_least_and_fedavg_does_not() -> None:
    best = (1.0 * 0.0 + 4.0 * 1.0) / (1.0 + 4.0)
    assert abs(_federate(FedAvg(), 60) - best) > 0.1
    assert abs(_federate(Scaffold(), 60) - best) < 1e-3


def test_scaffolds_shared_control_is_the_mean_of_the_hospitals(hospitals: Mapping[str, ImageSet]) -> None:
    plan, own = plan_with(Name.SCAFFOLD), dict[str, Contribution]()

    def listen(contribution: Contribution) -> RingArray:
        own[contribution.hospital] = contribution
        return contribution.encoded

    study = simulate(plan, hospitals, contribute=listen)
    opened = Reader(plan).read(study.versions[-1], round_number=3)
    mean = sum(float(c.weight) * np.asarray(c.trained.own["control"]) for c in own.values() if c.trained.own)
    assert np.abs(opened.shared - mean).max() < 10 / 2**plan.scale_bits
    assert np.abs(mean).max() > 0.01
    layout = layout_of(first_module(plan))
    assert not opened.shared[~layout.trained].any()


def test_a_fraction_of_the_hospitals_moves_the_shared_control_by_that_fraction() -> None:
    opened = Opened(0, np.zeros(2), np.zeros(1), np.zeros(1))
    all_of_it, _ = _descend(Scaffold(), opened, None, slope=1.0, goal=1.0)
    half, own = _descend(Scaffold(fraction=0.5), opened, None, slope=1.0, goal=1.0)
    assert half[1] == pytest.approx(all_of_it[1] / 2)
    assert own is not None
    assert own["control"][0] == pytest.approx(all_of_it[1])


@pytest.mark.parametrize("mu", [0.5, 3.0])
def test_fedprox_adds_the_gradient_of_its_pull(mu: float) -> None:
    opened = Opened(0, np.array([2.0]), np.array([2.0]), np.zeros(0))
    update, _ = _descend(FedProx(mu=mu), opened, None, slope=1.0, goal=1.0)
    w = 2.0
    for _ in range(10):
        w -= 0.1 * ((w - 1.0) + mu * (w - 2.0))
    assert update[0] == pytest.approx(w - 2.0, rel=1e-5)


def test_fedbn_keeps_batch_norm_at_the_hospitals_until_the_last_round(
    hospitals: Mapping[str, ImageSet],
) -> None:
    plan, heard = plan_with(Name.FEDBN), list[Contribution]()

    def listen(contribution: Contribution) -> RingArray:
        heard.append(contribution)
        return contribution.encoded

    study = simulate(plan, hospitals, contribute=listen)
    mask = layout_of(first_module(plan)).batch_norm
    first, *between, last = [decode_vector(v, scale_bits=plan.scale_bits)[mask] for v in study.versions]
    assert all(np.array_equal(first, version) for version in between)
    states = {(c.hospital, c.round_number): _batch_norm(c.trained.own) for c in heard}
    assert not np.allclose(states["alpha", 1], states["alpha", 2])
    assert not np.allclose(states["alpha", 2], states["beta", 2])
    weights = {c.hospital: float(c.weight) for c in heard}
    mean = sum(weights[name] * states[name, 3] for name in hospitals)
    assert np.abs(last - mean).max() < 1e-4


def test_fedbn_goes_on_from_the_hospitals_own_batch_norm() -> None:
    layout = Layout(trained=np.array([True, True]), batch_norm=np.array([False, True]))
    opened = Opened(0, np.array([1.0, 1.0]), np.array([1.0, 1.0]), np.zeros(0))
    start = Start(opened, {"batch_norm": np.array([7.0])}, layout, learning_rate=0.1, last_round=False)
    assert FedBN().start_weights(start).tolist() == [1.0, 7.0]
    finished = FedBN().finish(start, np.array([0.5, 2.0], np.float32), steps=1)
    assert finished.update.tolist() == [0.5, 0.0]
    assert finished.own is not None
    assert finished.own["batch_norm"].tolist() == [9.0]
    last = Start(opened, {"batch_norm": np.array([7.0])}, layout, learning_rate=0.1, last_round=True)
    assert FedBN().finish(last, np.array([0.5, 2.0], np.float32), steps=1).update.tolist() == [0.5, 8.0]


@pytest.mark.parametrize("own", [{}, {"control": np.zeros(3)}, {"control": np.array([np.nan])}])
def test_an_own_state_of_another_model_is_refused(own: OwnState) -> None:
    start = Start(Opened(0, np.zeros(2), np.zeros(1), np.zeros(1)), own, ALL_TRAINED, 0.1, last_round=False)
    with pytest.raises(FailedPrecondition, match="does not fit the model"):
        Scaffold().finish(start, np.zeros(1, np.float32), steps=1)


# ------------------------------------------------------------ layout and length


def test_the_layout_knows_parameters_and_batch_norm_of_a_model() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    layout, vector = layout_of(module), state_vector(module)
    assert layout.parameters == len(vector)
    assert int(layout.trained.sum()) == sum(p.numel() for p in module.parameters())
    assert int(layout.batch_norm.sum()) == 4 * 2  # weight, bias, mean, variance
    assert vector[layout.batch_norm & ~layout.trained].tolist() == [0.0, 0.0, 1.0, 1.0]
    for slot in slots_of(module):
        assert np.array_equal(vector[slot.place], slot.tensor.detach().numpy().reshape(-1))


@pytest.mark.parametrize(("name", "vectors"), [(Name.FEDAVG, 1), (Name.FEDADAM, 1), (Name.SCAFFOLD, 2)])
def test_a_versions_length_follows_from_the_plan(name: Name, vectors: int) -> None:
    plan = plan_with(name)
    assert version_length(plan) == len(first_version(plan)) == vectors * len(state_vector(first_module(plan)))


def _batch_norm(own: OwnState | None) -> np.ndarray:
    assert own is not None
    return np.asarray(own["batch_norm"])
