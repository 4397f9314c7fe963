"""Encrypted predictions of compiled models in lockstep: equal to torch, at the declared cost."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from libs.core.errors import InvalidInput, MaskReuse, PeerViolation
from libs.core.ids import PARTIES, PartyId
from libs.models.registry import build_model
from libs.mpc.lockstep import Sent, Transcript, run_lockstep
from libs.mpc.prg import MaskSource, PairKey, random_ring
from libs.mpc.program import Message
from libs.mpc.ring import Ring
from libs.mpc.schemes.masked.comparison import Comparison
from libs.mpc.schemes.masked.roles import Dealer, Evaluator, Roles
from libs.secure_nn.calibrate import calibrate
from libs.secure_nn.client import mask_input, reveal_output
from libs.secure_nn.compile import compile_module
from libs.secure_nn.encode import encode_parameters
from libs.secure_nn.plan import Plan
from libs.secure_nn.predict import Material, deal_program, evaluate_program, prepare_program
from libs.secure_nn.secure_model import mask_model_program


class Wide(nn.Module):
    """A layer whose range leaves its weights no bits in 32, so that the compiler takes 64."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3, stride=2), nn.Linear(4 * 7 * 7, 2)
        with torch.no_grad():
            self.conv.bias.fill_(20_000.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.conv(x)).flatten(1))


class Residual(nn.Module):
    """Every layer that the issue names, in one small network."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.skip = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        self.pool = nn.AvgPool2d(3, 2, 1)
        self.last = nn.AdaptiveAvgPool2d((2, 2))
        self.head = nn.Linear(32, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.relu(self.grouped(x) + x)
        x = torch.relu(self.grouped(x) + self.skip(x))
        return self.head(torch.flatten(self.last(self.pool(x)), 1))


@dataclass
class Federation:
    """Three parties' keys and one masked model; runs predictions in lockstep."""

    plan: Plan
    roles: Roles
    parameters: np.ndarray

    def __post_init__(self) -> None:
        keys = {pair: secrets.token_bytes(32) for pair in ((0, 1), (0, 2), (1, 2))}
        self.keys = {
            me: {p: PairKey(keys[min(me, p), max(me, p)]) for p in PARTIES if p != me} for me in PARTIES
        }
        ring = self.plan.ring
        shares = [random_ring(self.parameters.shape, ring) for _ in range(2)]
        shares.append(self.parameters - shares[0] - shares[1])
        self.models, _ = run_lockstep(
            [
                mask_model_program(p, self.roles, self.sources(p, "model"), self.plan, shares[p])
                for p in PARTIES
            ]
        )

    def sources(self, me: PartyId, computation: str) -> dict[PartyId, MaskSource]:
        return {peer: key.for_computation(computation) for peer, key in self.keys[me].items()}

    def prepare(
        self, computation: str, batch: int, comparison: Comparison = Comparison.NARROW
    ) -> tuple[dict[PartyId, Any], Transcript]:
        roles, plan = self.roles, self.plan
        sources = {me: self.sources(me, computation) for me in PARTIES}
        mine = sources[roles.dealer]
        dealer = Dealer(mine[roles.first], mine[roles.second])
        self.evaluators = {
            me: Evaluator.of(me, roles, sources[me][roles.dealer]) for me in (roles.first, roles.second)
        }
        dealing = deal_program(
            plan, self.models[roles.dealer], dealer, roles, batch=batch, comparison=comparison
        )
        programs: dict[PartyId, Any] = {roles.dealer: dealing}
        for me, evaluator in self.evaluators.items():
            programs[me] = prepare_program(
                plan, self.models[me], evaluator, batch=batch, comparison=comparison
            )
        return run_lockstep(programs)

    def evaluate(
        self, materials: dict[PartyId, Material], inputs: dict[PartyId, np.ndarray], **tamper: Any
    ) -> tuple[dict[PartyId, np.ndarray], Transcript]:
        programs = {
            me: evaluate_program(
                self.plan,
                self.models[me],
                evaluator,
                materials[me],
                inputs[me],
                digest=hashlib.sha256(inputs[me].tobytes()).digest(),
                computation="c",
            )
            for me, evaluator in self.evaluators.items()
        }
        return run_lockstep(programs, **tamper)

    def masked(self, materials: dict[PartyId, Material], images: np.ndarray) -> dict[PartyId, np.ndarray]:
        first, second = self.roles.first, self.roles.second
        m = mask_input(self.plan, images, materials[first].input_seed, materials[second].input_seed)
        return {first: m, second: m}


def compiled(
    module: nn.Module, shape: tuple[int, int, int], ring: Ring | None = None, turn: int = 0
) -> tuple[Federation, nn.Module]:
    module = module.eval()
    torch.manual_seed(0)
    plan = compile_module(
        module, input_shape=shape, bounds=calibrate(module, torch.rand(16, *shape) * 2 - 1), ring=ring
    )
    return Federation(plan, Roles.rotated(turn), encode_parameters(module, plan)), module


def settled(module: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    """BatchNorm statistics as after training, so that folding has something to fold."""
    torch.manual_seed(1)
    module.train()
    with torch.no_grad():
        for _ in range(3):
            module(torch.rand(8, *shape) * 2 - 1)
    return module.eval()


def _model(name: str, size: int) -> Any:
    return lambda: build_model(name, channels=1, classes=2, size=size, seed=1)


CASES = [
    ("residual", Residual, (1, 30, 33), None, 3),
    ("residual in the 64-bit ring", Residual, (1, 30, 33), Ring.RING_64, 2),
    ("a range for the 64-bit ring", Wide, (1, 16, 16), None, 2),
    ("small_cnn", _model("small_cnn", 28), (1, 28, 28), None, 5),
    ("medium_cnn", _model("medium_cnn", 64), (1, 64, 64), None, 1),
    ("resnet18", _model("resnet18", 32), (1, 32, 32), None, 1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "make", "shape", "ring", "batch"), CASES, ids=[c[0] for c in CASES])
@pytest.mark.parametrize("turn", [0, 1, 2])
@pytest.mark.parametrize("comparison", Comparison)
def test_encrypted_logits_equal_torch_at_the_declared_cost(
    name: str,
    make: Any,
    shape: tuple[int, int, int],
    ring: Ring | None,
    batch: int,
    turn: int,
    comparison: Comparison,
) -> None:
    if turn and name == "resnet18":
        pytest.skip("one assignment of roles is enough for the large one")
    torch.manual_seed(2)
    federation, module = compiled(settled(make(), shape), shape, ring, turn)
    torch.manual_seed(3)
    images = torch.rand(batch, *shape) * 2 - 1
    materials, offline = federation.prepare("c", batch, comparison)
    assert {material.comparison for material in materials.values() if material} == {comparison}
    inputs = federation.masked(materials, images.double().numpy())
    shares, online = federation.evaluate(materials, inputs)
    first, second = federation.roles.first, federation.roles.second
    logits = reveal_output(federation.plan, shares[first], shares[second], batch=batch)
    with torch.no_grad():
        expected = module(images).numpy()
    assert np.abs(logits - expected).max() < 0.02 * max(1.0, np.abs(expected).max())
    cost = federation.plan.cost(batch, comparison=comparison)
    assert online.rounds == {first: cost.rounds, second: cost.rounds}
    assert online.bytes_sent(first, second) == cost.online_bytes_each_way
    assert online.bytes_sent(second, first) == cost.online_bytes_each_way
    assert offline.bytes_sent(federation.roles.dealer, second) == cost.dealt_bytes
    assert offline.bytes_sent(federation.roles.dealer, first) == 0
    if ring is not None:
        assert federation.plan.ring is ring
    else:
        assert federation.plan.ring is (Ring.RING_64 if "64-bit" in name else Ring.RING_32)


@pytest.fixture(scope="module")
def small() -> Federation:
    torch.manual_seed(2)
    return compiled(settled(Residual(), (1, 16, 16)), (1, 16, 16))[0]


def test_evaluators_refuse_different_inputs_of_one_client(small: Federation) -> None:
    materials, _ = small.prepare("two inputs", 1)
    inputs = small.masked(materials, np.zeros((1, 1, 16, 16)))
    inputs[small.roles.first] = inputs[small.roles.first] + np.uint32(1)
    with pytest.raises(PeerViolation, match="different inputs"):
        small.evaluate(materials, inputs)


def test_a_computation_cannot_be_prepared_twice(small: Federation) -> None:
    small.prepare("once", 1)
    with pytest.raises(MaskReuse):
        small.prepare("once", 1)


def test_two_predictions_of_one_image_repeat_no_byte_block(small: Federation) -> None:
    """The same input, the same weights: everything that crosses a link is fresh."""
    image = np.full((1, 1, 16, 16), 0.25)
    blocks: set[bytes] = set()
    total = 0
    for computation in ("first", "second"):
        materials, offline = small.prepare(computation, 1)
        _, online = small.evaluate(materials, small.masked(materials, image))
        for sent in offline.messages + online.messages:
            if sent.label == "input/digest":
                continue
            for array in sent.message.values():
                raw = array.tobytes()
                pieces = [raw[i : i + 16] for i in range(0, len(raw) - 15, 16)]
                blocks.update(pieces)
                total += len(pieces)
    assert total > 1000
    assert len(blocks) == total


@pytest.mark.parametrize("kind", ["missing", "shape", "dtype"])
def test_a_tampered_message_aborts_the_prediction(small: Federation, kind: str) -> None:
    materials, _ = small.prepare(f"tampered {kind}", 1)

    def tamper(sent: Sent) -> Message:
        if "open" not in sent.label and "m" not in sent.message:
            return sent.message
        array = next(iter(sent.message.values()))
        return {
            "missing": {},
            "shape": {"m": array.reshape(-1)[:-1]},
            "dtype": {"m": array.astype(np.uint64)},
        }[kind]

    with pytest.raises(PeerViolation):
        small.evaluate(materials, small.masked(materials, np.zeros((1, 1, 16, 16))), tamper=tamper)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 1, 15, 16)),
        np.zeros((1, 3, 16, 16)),
        np.zeros((0, 1, 16, 16)),
        np.full((1, 1, 16, 16), np.nan),
        np.full((1, 1, 16, 16), 1e6),
    ],
    ids=["size", "channels", "empty", "nan", "beyond the calibration"],
)
def test_a_client_is_told_what_is_wrong_with_its_image(small: Federation, images: np.ndarray) -> None:
    with pytest.raises(InvalidInput):
        mask_input(small.plan, images, b"0" * 16, b"1" * 16)


def test_a_client_refuses_one_mask_for_both_halves(small: Federation) -> None:
    with pytest.raises(InvalidInput, match="same mask"):
        mask_input(small.plan, np.zeros((1, 1, 16, 16)), b"0" * 16, b"0" * 16)
