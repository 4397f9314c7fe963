"""A piece of material as bytes and back."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from libs.core.errors import FailedPrecondition
from libs.mpc.schemes.masked.relu import ReluMaterial
from libs.secure_nn.material_codec import dump_material, load_material
from libs.secure_nn.predict import Material


def material() -> Material:
    rng = np.random.default_rng(1)
    relu = ReluMaterial(
        masks=rng.integers(0, 1 << 16, 5, dtype=np.uint16),
        onehot=rng.integers(0, 1 << 16, (4, 5), dtype=np.uint16),
        products=rng.integers(0, 1 << 16, 5, dtype=np.uint16),
        dealt=rng.integers(0, 1 << 32, (2, 5), dtype=np.uint32),
        mask=None,
    )
    product = rng.integers(0, 1 << 63, (1, 2, 3, 3), dtype=np.uint64)
    return Material(1, bytes(range(16)), {"conv": product, "relu": relu}, bytes_received=77)


def test_a_piece_comes_back_as_it_was_and_can_be_computed_with() -> None:
    before = material()
    after = load_material(bytearray(b"".join(dump_material(before))))
    assert (after.batch, after.input_seed, after.bytes_received) == (1, before.input_seed, 77)
    np.testing.assert_array_equal(after.of_step["conv"], before.of_step["conv"])
    for name, value in dataclasses.asdict(before.of_step["relu"]).items():
        np.testing.assert_array_equal(getattr(after.of_step["relu"], name), value)
    arrays = [after.of_step["conv"], after.of_step["relu"].onehot, after.of_step["relu"].dealt]
    assert all(array.flags.writeable and array.flags.aligned for array in arrays)


@pytest.mark.parametrize("change", [b"trefoil-material-9", b'"record": "Opened"'])
def test_another_format_or_record_is_refused(change: bytes) -> None:
    content = b"".join(dump_material(material()))
    old = b"trefoil-material-1" if change.startswith(b"trefoil") else b'"record": "Material"'
    broken = content.replace(old, change + b" " * (len(old) - len(change)))
    with pytest.raises(FailedPrecondition):
        load_material(bytearray(broken))


def test_a_cut_off_piece_is_refused() -> None:
    content = b"".join(dump_material(material()))
    with pytest.raises(FailedPrecondition):
        load_material(bytearray(content[:-40]))
