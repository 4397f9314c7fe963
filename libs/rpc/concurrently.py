"""Calls to several parties at once, ending in one result or one error."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from libs.core.errors import CallerError, PeerViolation, TrefoilError, Unavailable

T = TypeVar("T")


async def together(*calls: Coroutine[Any, Any, T], grace_s: float = 0.0) -> list[T]:
    """The results in order. When one fails, the others are cancelled and its error is raised.

    With `grace_s` the others may fail too before that, and the error that tells most is raised: when one
    party finds a violation, the other ones only know that it aborted.
    """
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        if pending and grace_s:
            await asyncio.wait(tasks, timeout=grace_s)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    errors = [error for task in tasks if not task.cancelled() and (error := task.exception()) is not None]
    if errors:
        raise max(errors, key=_telling)
    return [task.result() for task in tasks]


def _telling(error: BaseException) -> int:
    """Higher is closer to the cause."""
    ranks: list[type[TrefoilError]] = [Unavailable, CallerError, PeerViolation]
    return next((rank for rank, kind in enumerate(ranks) if isinstance(error, kind)), len(ranks))
