"""Blocking work that a cancelled caller must not leave half done behind its back."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def run_to_end(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of `function`, run in a thread. A cancelled caller is told only once the thread has ended.

    So whoever cleans up after the cancellation, or begins anew, knows that nothing is written any more. The
    work itself goes on to its end: a clean-up that depends on its result belongs into `function`.
    """
    call = partial(contextvars.copy_context().run, partial(function, *args, **kwargs))
    # A future and not a task: the end of the event loop cancels tasks, and threads do not notice.
    work = asyncio.get_running_loop().run_in_executor(None, call)
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        work.exception()  # retrieved; whoever was cancelled does not ask for it
        raise cancelled
    return work.result()
