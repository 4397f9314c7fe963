"""What each process received in a small study and some predictions, byte by byte."""

from __future__ import annotations

import asyncio
import json
import re
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor
from rich.console import Console
from scipy.stats import chi2

from libs.cli.client.predictions import predict
from libs.cli.client.session import open_session
from libs.cli.demo import journey
from libs.cli.local_cluster import LocalCluster
from libs.core.errors import PermissionDenied, TrefoilError
from libs.data.transforms import to_model_input
from libs.fl.evaluation import predict_logits
from tests.e2e.support import (
    HOSPITALS,
    Received,
    begin_study,
    check_no_unknown_fields,
    publish,
    received_by,
    small_material,
    small_plan,
    walk,
)

pytestmark = pytest.mark.timeout(240)

PARTIES = ("party-0", "party-1", "party-2")
SEED_BYTES = 16


@dataclass(frozen=True)
class Recorded:
    """A finished run, its processes stopped."""

    cluster: LocalCluster
    trained: journey.Trained
    clear: np.ndarray
    encrypted: np.ndarray
    refused: TrefoilError | None

    def received(self, service: str) -> list[Received]:
        """What the service received."""
        return received_by(self.cluster, service)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("privacy")
    with LocalCluster(folder, hospitals=HOSPITALS, record_received=True) as cluster:
        return asyncio.run(cluster.guard(_run(cluster)))


async def _run(cluster: LocalCluster) -> Recorded:
    material, plan = small_material(), small_plan()
    await publish(cluster, material)
    async with (
        open_session(cluster.profile("scientist")) as scientist,
        open_session(cluster.profile("clinic")) as clinic,
    ):
        study = await begin_study(cluster, scientist, plan)
        study = await journey.train(scientist, study, Console(quiet=True))
        trained = await journey.open_results(scientist, study=study, plan=plan)
        images = to_model_input(material.test.images).numpy()
        # The same images in every turn of the roles and in the first one again: a mask used twice would show
        # as the same bytes twice.
        logits = [
            (await predict(clinic, model_id=study.released_model_id, images=images)).logits
            for _ in range(len(PARTIES) + 1)
        ]
        refused = None
        try:
            await journey.fetch_weights(clinic, model_id=study.latest_model_id, plan=plan)
        except TrefoilError as error:
            refused = error
    clear = predict_logits(trained.module, material.test.images).numpy()
    return Recorded(cluster, trained, clear, np.stack(logits), refused)


# ------------------------------------------------------------ it works at all


def test_encrypted_answers_equal_the_clear_ones(recorded: Recorded) -> None:
    assert np.abs(recorded.encrypted - recorded.clear).max() <= 0.02


def test_the_scientist_opens_metrics_of_all_hospitals_together(recorded: Recorded) -> None:
    study = recorded.trained.study
    images = sum(member.images for member in study.members)
    for metrics in recorded.trained.metrics:
        assert metrics.train_samples + metrics.validation_samples == images


def test_a_clinic_cannot_fetch_the_weights(recorded: Recorded) -> None:
    assert isinstance(recorded.refused, PermissionDenied)


# ------------------------------------------------------------ the coordinator

JSON_FIELDS = {"training_plan", "plan", "schema", "mock_recipe", "payload"}
PROOFS = {"signature", "certificate_chain"}
"""Who said it: what a key and a certificate authority made, never a hospital's data."""
FRACTIONS_AND_TIMES = {"fraction", "deadline_s"}
MOST_BYTES = 64 * 1024


def test_the_coordinator_receives_no_array(recorded: Recorded) -> None:
    messages = recorded.received("coordinator")
    assert {"Attach", "CreateStudy", "OpenPrediction"} <= {m.method.rpartition("/")[2] for m in messages}
    for received in messages:
        check_no_unknown_fields(received.message)
        assert received.size_bytes <= MOST_BYTES
        numbers: Counter[str] = Counter()
        for path, field, value in walk(received.message):
            name = path.rpartition(".")[2]
            if field.type == FieldDescriptor.TYPE_BYTES:
                assert name in JSON_FIELDS | PROOFS, f"{received.method} {path} carries bytes"
                assert name in PROOFS or isinstance(json.loads(value), dict)
            elif field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
                assert name in FRACTIONS_AND_TIMES, f"{received.method} {path} carries a real number"
            elif field.type == FieldDescriptor.TYPE_STRING:
                assert len(value) <= 500
            elif path.startswith("calibration.bound_bits["):
                assert -64 <= value <= 64, "a bound is a power of two, not a value"
            else:
                numbers[path] += 1
        assert max(numbers.values(), default=0) <= 16, f"{received.method} carries a list of numbers"


def test_the_plans_that_the_coordinator_holds_have_no_weights(recorded: Recorded) -> None:
    for received in recorded.received("coordinator"):
        for path, field, value in walk(received.message):
            if field.type == FieldDescriptor.TYPE_BYTES and path.rpartition(".")[2] not in PROOFS:
                assert _longest_list_of_numbers(json.loads(value)) <= 16, path


def _longest_list_of_numbers(document: object) -> int:
    if isinstance(document, dict):
        return max((_longest_list_of_numbers(value) for value in document.values()), default=0)
    if isinstance(document, list):
        if document and all(isinstance(item, int | float) for item in document):
            return len(document)
        return max((_longest_list_of_numbers(item) for item in document), default=0)
    return 0


@pytest.mark.parametrize("service", ["coordinator", *PARTIES])
def test_neither_metrics_nor_weights_are_on_the_disk_of_coordinator_or_parties(
    recorded: Recorded, service: str
) -> None:
    """Their whole folders, logs and recordings included, in every form that a number is likely to have."""
    needles = needles_of(recorded.trained)
    assert len(needles) > 50
    for file in recorded.cluster.folder(service).rglob("*"):
        if file.is_file():
            found = held_in(file.read_bytes(), needles)
            assert not found, f"{file} holds {needles[found[0]]} in clear"


def held_in(data: bytes, needles: Iterable[bytes]) -> list[bytes]:
    """Those of the needles, of two bytes or more each, that are in `data`.

    Looks closer only where two bytes are as a needle begins after its zeros, of which files are full:
    megabytes are read twice, not once per needle.
    """
    beginning: defaultdict[bytes, list[tuple[int, bytes]]] = defaultdict(list)
    for needle in needles:
        zeros = min(len(needle) - len(needle.lstrip(b"\0")), len(needle) - 2)
        beginning[needle[zeros : zeros + 2]].append((zeros, needle))
    begins = np.zeros(2**16, np.bool_)
    begins[[int.from_bytes(pair, "little") for pair in beginning]] = True
    found: list[bytes] = []
    for offset in (0, 1):
        whole = data[offset : len(data) - (len(data) - offset) % 2]
        for place in (2 * np.flatnonzero(begins[np.frombuffer(whole, "<u2")]) + offset).tolist():
            for zeros, needle in beginning[data[place : place + 2]]:
                if place >= zeros and data.startswith(needle, place - zeros):
                    found.append(needle)
    return found


@pytest.mark.parametrize("before", [b"", b"x", b"xy", b"abab"])
@pytest.mark.parametrize("after", [b"", b"\0"])
def test_a_needle_is_found_wherever_it_stands(before: bytes, after: bytes) -> None:
    assert held_in(before + b"abc" + after, [b"bcd", b"abc", b"ab\1"]) == [b"abc"]
    assert held_in(before + b"\0\0\0ab" + after, [b"\0\0ab", b"\0\0ac"]) == [b"\0\0ab"]
    assert held_in(before + after, [b"abc"]) == []


def needles_of(trained: journey.Trained) -> dict[bytes, str]:
    """What the scientist opened, in the forms to search for: losses of all rounds, some of the weights."""
    needles: dict[bytes, str] = {}
    for number, metrics in enumerate(trained.metrics, start=1):
        losses = (metrics.train_loss_sum, metrics.validation_loss_sum, metrics.validation_loss or 0.0)
        needles |= {form: f"a loss of round {number}" for loss in losses for form in forms_of(loss)}
    for name, tensor in trained.module.state_dict().items():
        values = tensor.flatten().double().tolist()[:5]
        needles |= {form: name for value in values for form in forms_of(value)}
        # Four bytes turn up in megabytes of random shares by chance; eight do not.
        needles |= {
            struct.pack(f"{order}2f", *pair): name for pair in pairwise(values) for order in "<>" if all(pair)
        }
    return needles


TEXT_DIGITS = 8
"""Six would be found in the microseconds of some line of a log: they were, once in twenty runs."""


def forms_of(value: float) -> set[bytes]:
    """A double in both byte orders, and its first digits. None for a number that stands in any file."""
    whole, _, fraction = np.format_float_positional(abs(value)).partition(".")
    whole = whole.lstrip("0")
    zeros = 0 if whole else len(fraction) - len(fraction.lstrip("0"))
    digits = fraction[: zeros + max(0, TEXT_DIGITS - len(whole))].rstrip("0")
    significant = len(whole) + len(digits) - zeros
    if significant < 5:
        return set()
    forms = {struct.pack("<d", value), struct.pack(">d", value)}
    return forms | {f"{whole}.{digits}".encode()} if significant >= TEXT_DIGITS - 1 else forms


@pytest.mark.parametrize("value", [0.123456789, -0.00123456789, 12.33593751, 812.40234])
def test_a_number_is_found_as_a_double_and_in_text(value: float) -> None:
    for written in (struct.pack("<d", value), struct.pack(">d", value), f'"loss":{value!r},'.encode()):
        assert any(form in b"..." + written + b"..." for form in forms_of(value))


def test_no_number_is_found_in_the_microseconds_of_a_log() -> None:
    """At 15:04:05.551764, 0.5517641 was once found in a log that did not hold it."""
    for value in np.random.default_rng(0).random(1000):
        text = f"{value:.15f}"[1:]
        assert not any(form in f'"time": "15:04:05{text[:7]}Z"'.encode() for form in forms_of(value))


def test_round_numbers_are_not_searched_for() -> None:
    assert not any(forms_of(value) for value in (0.0, 1.0, 3.0, 0.5, 12.25))


# ------------------------------------------------------------ the parties


def arrays_in(received: Received) -> Iterator[bytes]:
    """Bytes of ring arrays in a message: shares, their seeds, masked inputs, and what peers exchange."""
    for path, field, value in walk(received.message):
        name = path.rpartition(".")[2]
        is_array = name in {"seed", "chunk", "masked_input_chunk", "payload"}
        if field.type == FieldDescriptor.TYPE_BYTES and is_array:
            yield value


# Messages between parties that hold digests of names and of masked inputs, which they compare: no shares, and
# equal by design. Everything else is an array on shares, also under a label that does not exist yet.
DIGESTS = {"status", "prepared", "join", "input/digest", "masking/known", "masking/offer", "masking/choice"}
# Names of pieces of material, which the three parties reserve together, and flags: a number ends the label.
DIGESTS |= {"pool/offer", "pool/known", "pool/list", "pool/kept"}
MOST_DIGEST_BYTES = 4096


def on_shares(received: Received) -> bool:
    """Whether the arrays of this message are shares or masked values."""
    return re.sub(r"/\d+$", "", label_of(received)) not in DIGESTS


def label_of(received: Received) -> str:
    """What a peer's message is for, or the method of any other message."""
    data = getattr(received.message, "data", None)
    return data.label if data is not None and data.label else received.method


@pytest.mark.parametrize("party", PARTIES)
def test_what_is_not_on_shares_is_too_short_to_be_an_update_or_an_image(
    recorded: Recorded, party: str
) -> None:
    for received in recorded.received(party):
        if not on_shares(received):
            assert sum(len(array) for array in arrays_in(received)) <= MOST_DIGEST_BYTES


@pytest.mark.parametrize("party", PARTIES)
def test_all_arrays_that_a_party_receives_look_random(recorded: Recorded, party: str) -> None:
    data = b"".join(array for m in recorded.received(party) if on_shares(m) for array in arrays_in(m))
    counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    assert counts.sum() > 100_000
    expected = counts.sum() / 256
    statistic = ((counts - expected) ** 2 / expected).sum()
    # One in a million false alarms; one unmasked layer of activations is thousands of standard deviations
    # off.
    assert statistic < chi2.ppf(1 - 1e-6, df=255)


@pytest.mark.parametrize("party", PARTIES)
def test_every_kind_of_array_by_itself_looks_random(recorded: Recorded, party: str) -> None:
    kinds: dict[str, list[bytes]] = {}
    for received in recorded.received(party):
        if on_shares(received):
            kinds.setdefault(label_of(received), []).extend(arrays_in(received))
    for kind, arrays in kinds.items():
        counts = np.bincount(np.frombuffer(b"".join(arrays), np.uint8), minlength=256)
        expected = counts.sum() / 256
        if expected >= 5:  # below that, chi-square means nothing
            statistic = ((counts - expected) ** 2 / expected).sum()
            assert statistic < chi2.ppf(1 - 1e-7, df=255), f"{party}: {kind} is not uniform"


@pytest.mark.parametrize("party", PARTIES)
def test_no_block_of_a_mask_or_share_comes_twice(recorded: Recorded, party: str) -> None:
    seen: set[bytes] = set()
    for received in recorded.received(party):
        if not on_shares(received):
            continue
        for array in arrays_in(received):
            blocks = [array[i : i + SEED_BYTES] for i in range(0, len(array) - SEED_BYTES + 1, SEED_BYTES)]
            for block in blocks:
                assert block not in seen, f"{party} received a block twice ({label_of(received)})"
                seen.add(block)
    assert len(seen) > 1000


def test_hospitals_receive_no_contribution_of_another(recorded: Recorded) -> None:
    """A hospital gets shares of model versions only, and from the three parties it dials itself."""
    for hospital in HOSPITALS:
        for received in recorded.received(f"hospital-{hospital}"):
            for path, field, _value in walk(received.message):
                if field.type == FieldDescriptor.TYPE_BYTES and path.rpartition(".")[2] == "chunk":
                    assert received.method.endswith("/GetShares")
