from __future__ import annotations

import secrets

import numpy as np
import pytest

from libs.core.errors import InvalidInput, MaskReuse
from libs.mpc.prg import PairKey, Prg, agree_pair_key, expand_seed, new_private_key
from libs.mpc.ring import Ring


def test_a_mask_cannot_be_drawn_twice() -> None:
    source = PairKey(secrets.token_bytes(32)).for_computation("a")
    source.stream("layer1/mask")
    with pytest.raises(MaskReuse):
        source.stream("layer1/mask")


def test_a_computation_cannot_be_run_twice_under_one_key() -> None:
    key = PairKey(secrets.token_bytes(32))
    key.for_computation("a")
    with pytest.raises(MaskReuse):
        key.for_computation("a")


def test_streams_differ_by_key_computation_and_label() -> None:
    root = secrets.token_bytes(32)
    draws = [
        PairKey(key).for_computation(computation).stream(label).array((32,), np.uint8).tobytes()
        for key in (root, secrets.token_bytes(32))
        for computation in ("a", "b", "a/b")
        for label in ("c", "d", "b/c")
    ]
    assert len(set(draws)) == len(draws)


def test_a_seed_draws_what_its_stream_drew_and_nothing_else() -> None:
    source = PairKey(secrets.token_bytes(32)).for_computation("a")
    stream, other = source.stream("input/mask"), source.stream("other")
    drawn = stream.ring((1000,), Ring.RING_32)
    assert (expand_seed(stream.seed(), 1000, Ring.RING_32) == drawn).all()
    assert not (expand_seed(stream.seed(), 1000, Ring.RING_32) == other.ring((1000,), Ring.RING_32)).any()


def test_reading_in_pieces_equals_reading_at_once() -> None:
    seed = secrets.token_bytes(16)
    whole = Prg(seed).array((3_000_001,), np.uint8)
    stream = Prg(seed)
    pieces = [stream.array((n,), np.uint8) for n in (1, 15, 17, 1_999_999, 999_969 + 0)]
    assert (np.concatenate(pieces) == whole[: sum(map(len, pieces))]).all()


def test_aes_ctr_known_answer() -> None:
    """AES-128 of the zero block under the zero key, as published in many places."""
    assert Prg(bytes(16)).array((16,), np.uint8).tobytes().hex() == "66e94bd4ef8a2c3b884cfa59ca342b2e"


def test_both_ends_agree_on_a_key_and_others_do_not() -> None:
    a, b, c = new_private_key(), new_private_key(), new_private_key()
    public = {key: key.public_key().public_bytes_raw() for key in (a, b, c)}
    draw = lambda key: key.for_computation("x").stream("y").array((16,), np.uint8).tobytes()  # noqa: E731
    ab = draw(agree_pair_key(a, public[b], low=0, high=1))
    assert draw(agree_pair_key(b, public[a], low=0, high=1)) == ab
    assert draw(agree_pair_key(a, public[c], low=0, high=1)) != ab
    assert draw(agree_pair_key(a, public[b], low=0, high=2)) != ab


def test_a_bad_public_key_is_refused() -> None:
    with pytest.raises(InvalidInput):
        agree_pair_key(new_private_key(), bytes(32), low=0, high=1)


def test_keys_and_masks_do_not_print() -> None:
    key = PairKey(b"k" * 32)
    assert "redacted" in repr(key)
    assert "redacted" in repr(key.for_computation("a"))
    assert "kkk" not in repr(key) + repr(key.for_computation("b"))
