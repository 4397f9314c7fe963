"""What a service writes into its trail from a thread of its own: nobody waits for the disk.

For events that have no transaction to be part of: refused calls, predictions. A kill -9 loses what came
in the last second (`FLUSH_S`); what has to be certain is appended in the transaction that it tells of.
"""

from __future__ import annotations

import threading
from collections import deque

from libs.core.clock import Clock
from libs.core.errors import Unavailable
from libs.runtime.audit.entry import Event
from libs.runtime.audit.log import AuditLog
from libs.runtime.audit.refusals import Refusal, RefusalCounter
from libs.runtime.logging import get_logger

log = get_logger(__name__)

FLUSH_S = 1.0
BATCH = 100
MAX_WAITING = 10_000
CHECKPOINT_S = 60.0
"""A new entry is signed after so long at the latest, or with the next hundred."""


class AuditWriter:
    """Batches events into the trail, and signs it from time to time. `start` begins, `close` ends."""

    def __init__(self, trail_log: AuditLog, clock: Clock) -> None:
        self._log, self._clock = trail_log, clock
        self._waiting: deque[Event] = deque()
        self._refusals = RefusalCounter(clock)
        self._lock = threading.Lock()  # of the waiting events and the counter
        self._writing = threading.Lock()  # one batch at a time: their order is that of the events
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._signed_s = clock.monotonic_s()

    @property
    def log(self) -> AuditLog:
        """The trail's own transactions."""
        return self._log

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def require_room(self) -> None:
        """Raise Unavailable when the trail cannot keep up: what cannot be recorded must not begin."""
        if len(self._waiting) >= MAX_WAITING:
            raise Unavailable("The audit trail cannot be written right now. Try again in a moment.")

    def submit(self, event: Event) -> None:
        """Write the event within a second or so. Never blocks; the end of what has begun always has room."""
        with self._lock:
            self._waiting.append(event)

    def refused(self, refusal: Refusal) -> None:
        """Write, or count, a refused call. Never blocks."""
        with self._lock:
            event = self._refusals.note(refusal)
            if event is not None and len(self._waiting) < MAX_WAITING:
                self._waiting.append(event)

    def flush(self) -> None:
        """Write everything that was submitted before. Blocks. Unavailable when the database is down."""
        with self._writing:
            while batch := self._batch():
                try:
                    self._log.record(batch)
                except BaseException:
                    with self._lock:
                        self._waiting.extendleft(reversed(batch))
                    raise

    def checkpoint(self) -> None:
        """Write what waits and sign the end of the chain. Blocks."""
        self.flush()
        self._log.checkpoint()
        self._signed_s = self._clock.monotonic_s()

    def close(self) -> None:
        """Write and sign what is left, and stop. Blocks; errors of the database are logged."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self.summarise()
        try:
            self.checkpoint()
        except Exception as error:
            log.error("audit_not_written", waiting=len(self._waiting), exc_info=error)

    def _run(self) -> None:
        while not self._stop.wait(FLUSH_S):
            try:
                self._turn()
            except Exception as error:  # a full disk, a lost database: the events wait, and are tried again
                log.error("audit_not_written", waiting=len(self._waiting), exc_info=error)

    def summarise(self) -> None:
        """End the window of counted refusals now."""
        with self._lock:
            self._waiting.extend(self._refusals.summaries(even_if_early=True))

    def _turn(self) -> None:
        with self._lock:
            self._waiting.extend(self._refusals.summaries())
        if self._clock.monotonic_s() - self._signed_s >= CHECKPOINT_S:
            self.checkpoint()
        else:
            self.flush()

    def _batch(self) -> list[Event]:
        with self._lock:
            return [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
