"""Logs are JSON lines, and what is secret by name or by type is blanked."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from libs.core.errors import InvalidInput
from libs.core.secret import Secret
from libs.runtime.logging import REDACTED, configure_logging, get_logger

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJkYW5hIn0.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    buffer = io.StringIO()
    configure_logging(service="party-0", level="INFO", stream=buffer)
    yield buffer
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_line_with_its_fields(stream: io.StringIO) -> None:
    get_logger("libs.example").info("round_completed", round=3, sent_bytes=1024, folder=Path("/x"))
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "round_completed",
        "level": "info",
        "logger": "libs.example",
        "service": "party-0",
        "round": 3,
        "sent_bytes": 1024,
        "folder": "/x",
    }


def test_the_level_is_respected_and_context_is_bound(stream: io.StringIO) -> None:
    log = get_logger("libs.example")
    log.debug("not_logged")
    with structlog.contextvars.bound_contextvars(request_id="request-1"):
        log.warning("logged")
    assert [(line["event"], line["request_id"]) for line in lines(stream)] == [("logged", "request-1")]


def test_the_standard_library_logs_the_same_way(stream: io.StringIO) -> None:
    logging.getLogger("grpc").warning("reconnecting to %s", "party-1")
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["service"]) == (
        "reconnecting to party-1",
        "warning",
        "party-0",
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("token", "abc"),
        ("worker_token", "abc"),
        ("share", "abc"),
        ("patient", "person7"),
        ("image", "person7.png"),
        ("storage_key", "00ff"),
        ("weights", [1.84467, 2.5]),
        ("data", b"bytes"),
        ("data", np.arange(3)),
        ("data", Secret("hunter2")),
        ("nested", {"seed": "abc"}),
        ("text", f"Bearer {TOKEN}"),
        ("items", [f"see {TOKEN}"]),
    ],
)
def test_secrets_are_blanked_by_name_by_type_and_by_look(
    stream: io.StringIO, name: str, value: object
) -> None:
    get_logger("libs.example").info("done", **{name: value})
    assert REDACTED in stream.getvalue()
    for secret in ("abc", "person7", "00ff", "1.84467", "bytes'", "[0", "hunter2", "eyJ"):
        assert secret not in stream.getvalue()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("share_bytes", 12),
        ("images", 120),
        ("plan_hash", "ab" * 32),
        ("mask_count", "3"),
        ("model_id", "study/round-1"),
    ],
)
def test_sizes_counts_and_names_of_things_are_kept(stream: io.StringIO, name: str, value: object) -> None:
    get_logger("libs.example").info("done", **{name: value})
    assert lines(stream)[0][name] == value


def test_a_token_in_a_traceback_is_blanked(stream: io.StringIO) -> None:
    try:
        raise ValueError(f"bad {TOKEN}")
    except ValueError as error:
        get_logger("libs.example").error("call_failed", exc_info=error)
    (line,) = lines(stream)
    assert "ValueError" in line["exception"]
    assert "eyJ" not in stream.getvalue()


def test_an_object_without_a_json_form_is_logged_by_type_only(stream: io.StringIO) -> None:
    class Share:
        def __repr__(self) -> str:
            return "Share(42)"

    get_logger("libs.example").info("done", thing=Share())
    assert lines(stream)[0]["thing"] == "<Share>"


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(InvalidInput, match="debug, info, warning, error"):
        configure_logging(service="x", level="loud")
