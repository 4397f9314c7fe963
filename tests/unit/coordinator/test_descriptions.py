"""What hospitals may say about datasets, and what of it is believed."""

from __future__ import annotations

from typing import Any

import pytest

from libs.core.errors import InvalidInput
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2 as pb
from libs.rpc.identity import Identity, Kind
from services.coordinator.catalogue import query_of
from services.coordinator.descriptions import MAX_IMAGES, described
from services.coordinator.wire_values import to_timestamp
from tests.fakes.studies import LATER, NOW

ALPHA = Identity(Kind.HOSPITAL, "alpha")
WITHHELD = pb.COUNT_DISCLOSURE_WITHHELD


def message(**changes: Any) -> pb.Dataset:
    fields = {
        "name": "xrays",
        "description": "Chest radiographs",
        "tags": ["X-Ray", " chest "],
        "modality": "CR",
        "images": 100,
        "version": 3,
        "licence": "CC-BY-4.0",
        "content_hash": "a" * 64,
        "schema": b'{"bits":8,"classes":["normal"]}',
        "disclosed_counts": {"normal": 100},
        "disclosure": pb.COUNT_DISCLOSURE_ROUNDED,
        "mock_recipe": b'{"seed":1}',
        "mock_hash": "b" * 64,
        "published_at": to_timestamp(LATER),
    }
    return pb.Dataset(**{**fields, **changes})


def test_every_field_is_kept_and_names_the_hospital_of_the_certificate() -> None:
    dataset = described(ALPHA, message(dataset_id="beta/xrays", hospital_identity="spiffe://x"), now=NOW)
    assert (dataset.dataset_id, dataset.hospital) == ("alpha/xrays", ALPHA.uri)
    assert (dataset.tags, dataset.version, dataset.published_at) == (("chest", "x-ray"), 3, LATER)
    assert (dataset.licence, dataset.disclosure) == ("CC-BY-4.0", "rounded")
    assert dataset.disclosed_counts == {"normal": 100}
    assert (dataset.content_hash, dataset.mock_hash) == ("a" * 64, "b" * 64)
    assert (dataset.schema, dataset.mock_recipe) == (
        b'{"bits":8,"classes":["normal"]}',
        b'{"seed":1}',
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": ""}, "name"),
        ({"name": "a/b"}, "slash"),
        ({"name": "x" * 129}, "name"),
        ({"description": "x" * 4001}, "description"),
        ({"description": "\x1b[2J"}, "description"),
        ({"tags": [str(number) for number in range(33)]}, "tags"),
        ({"tags": ["x" * 65]}, "tags"),
        ({"tags": ["\x07"]}, "tags"),
        ({"modality": "x" * 65}, "modality"),
        ({"licence": "x" * 1001}, "licence"),
        ({"images": 0}, "image"),
        ({"images": MAX_IMAGES + 1}, "images"),
        ({"content_hash": "A" * 64}, "content hash"),
        ({"content_hash": "a" * 63}, "content hash"),
        ({"mock_hash": "b" * 65}, "mock's hash"),
        ({"schema": b"{"}, "schema"),
        ({"schema": b"[]"}, "schema"),
        ({"schema": b'{"b":1,"a":2}'}, "schema"),
        ({"schema": b'{"a": 1}'}, "schema"),
        ({"schema": b'{"a":NaN}'}, "schema"),
        ({"schema": b"[" * 8000}, "schema"),
        ({"schema": b'{"a":"' + b"x" * 20_000 + b'"}'}, "schema"),
        ({"mock_recipe": b"{}" + b" "}, "recipe"),
        ({"disclosed_counts": {str(number): 1 for number in range(257)}}, "classes"),
        ({"disclosed_counts": {"": 1}}, "class"),
        ({"disclosed_counts": {"normal": MAX_IMAGES + 1}}, "count"),
        ({"disclosure": WITHHELD}, "withheld"),
        ({"disclosure": 9}, "disclosure"),
        ({"published_at": {"seconds": 2**60}}, "calendar"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        described(ALPHA, message(**changes), now=NOW)


def test_a_withheld_number_of_images_is_none_at_all() -> None:
    dataset = described(ALPHA, message(images=0, disclosed_counts={}, disclosure=WITHHELD), now=NOW)
    assert (dataset.images, dataset.disclosed_counts) == (0, {})


def test_a_node_of_the_first_release_says_less() -> None:
    dataset = described(ALPHA, pb.Dataset(name="xrays", images=1), now=NOW)
    assert (dataset.published_at, dataset.disclosure, dataset.schema) == (NOW, "", b"")


@pytest.mark.parametrize(
    "fields",
    [
        {"min_images": 2**63},
        {"max_images": 2**63},
        {"min_images": 2, "max_images": 1},
        {"modality": "x" * 65},
        {"name_contains": "x" * 129},
        {"tags": ["x" * 65]},
    ],
)
def test_a_search_that_nothing_can_match_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        query_of(pb.SearchDatasetsRequest(**fields))
