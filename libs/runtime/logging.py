"""Logs as JSON lines on standard error: an event name in the past tense, fields, and nothing secret.

log = get_logger(__name__)
log.info("round_completed", round=3, sent_bytes=1024)
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO, cast

import structlog
from structlog.typing import FilteringBoundLogger, WrappedLogger

from libs.core.errors import InvalidInput
from libs.core.secret import Secret

REDACTED = "<redacted>"
LEVELS = ("debug", "info", "warning", "error")

# Words that make a field secret wherever they stand in its name, unless it only counts or measures
# (`share_bytes`).
_SECRET_WORDS = frozenset(
    {"token", "secret", "password", "authorization", "bearer", "key", "keys"}
    | {
        "share",
        "shares",
        "mask",
        "masks",
        "seed",
        "seeds",
        "weight",
        "weights",
        "update",
        "payload",
        "values",
    }
    | {"image", "images", "patient", "patients", "logit", "logits", "prediction"}
)
_MEASURES = frozenset(
    {"bytes", "bits", "count", "length", "index", "kind", "id", "hash", "s", "ms", "path", "state", "rounds"}
)
# Three base64url parts: a JSON Web Token, wherever it turns up.
_JWT = re.compile(r"eyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*")


def configure_logging(*, service: str, level: str = "info", stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's logs to `stream` (standard error) as JSON lines."""
    if level.lower() not in LEVELS:
        raise InvalidInput(f"log_level is one of {', '.join(LEVELS)}, not {level!r}.")
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _named(service),
    ]
    rendering: list[structlog.typing.Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        redact,
        structlog.processors.JSONRenderer(default=_type_name),
    ]
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=rendering))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def get_logger(name: str) -> FilteringBoundLogger:
    """The logger of a module; `name` is its `__name__`."""
    return cast(FilteringBoundLogger, structlog.stdlib.get_logger(name))


def redact(_logger: WrappedLogger, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Blank fields that by name or by type hold a secret.

    The last line of defence, not a licence to log them.
    """
    return {name: _clean(name, value) for name, value in event.items()}


def _clean(name: str, value: object) -> object:
    words = name.lower().split("_")
    if _SECRET_WORDS.intersection(words) and words[-1] not in _MEASURES and not isinstance(value, int | bool):
        return REDACTED
    if isinstance(value, Secret | bytes | bytearray | memoryview) or hasattr(value, "__array__"):
        return REDACTED
    if isinstance(value, str):
        return _JWT.sub(REDACTED, value)
    if isinstance(value, Mapping):
        return {str(key): _clean(str(key), item) for key, item in value.items()}
    if isinstance(value, tuple | list | set | frozenset):
        return [_clean(name, item) for item in value]
    return value


def _named(service: str) -> structlog.typing.Processor:
    def add(
        _logger: WrappedLogger, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        event.setdefault("service", service)
        return event

    return add


def _type_name(value: object) -> str:
    """What stands in for an object that JSON cannot hold: its type, because its text might be a secret."""
    return (
        str(value)
        if hasattr(value, "isoformat") or hasattr(value, "__fspath__")
        else f"<{type(value).__name__}>"
    )
