"""Known answers of everything that two parties must derive alike. A changed answer is a changed protocol."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from libs.core.errors import InvalidInput
from libs.mpc.prg import PairKey, expand_seed
from libs.mpc.ring import Ring

VECTORS = json.loads((Path(__file__).parent / "prg_v1.json").read_text())


@pytest.mark.parametrize("vector", VECTORS["streams"], ids=lambda v: v["label"])
def test_streams(vector: dict[str, str]) -> None:
    source = PairKey(bytes.fromhex(vector["pair_key"])).for_computation(vector["computation"])
    stream = source.stream(vector["label"])
    assert stream.seed().hex() == vector["seed"]
    assert stream.array((24,), np.uint8).tobytes().hex() == vector["bytes"]


@pytest.mark.parametrize("vector", VECTORS["seeds"], ids=lambda v: str(v["ring_bits"]))
def test_expanded_seeds(vector: dict[str, object]) -> None:
    elements = expand_seed(bytes.fromhex(str(vector["seed"])), 3, Ring(vector["ring_bits"]))
    assert [int(e) for e in elements] == vector["elements"]


@pytest.mark.parametrize("vector", VECTORS["bad_seeds"])
def test_bad_seeds_are_refused(vector: str) -> None:
    with pytest.raises(InvalidInput):
        expand_seed(bytes.fromhex(vector), 1, Ring.RING_32)
