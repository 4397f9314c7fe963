"""Who is waiting for a study to change, and the progress that is shown but never stored."""

from __future__ import annotations

import asyncio
import enum
from collections import defaultdict
from dataclasses import dataclass

from libs.core.errors import Unavailable


class ChangeFeed:
    """A counter per study. Waiting for "later than what I saw" cannot miss a change in between."""

    def __init__(self) -> None:
        self._versions: defaultdict[str, int] = defaultdict(int)
        self._waiting: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._closed = False

    def version(self, study_id: str) -> int:
        """Take this before reading the study, and give it to `wait` afterwards."""
        return self._versions.get(study_id, 0)

    def publish(self, study_id: str) -> None:
        """The study, or what is known of its hospitals, changed."""
        self._versions[study_id] += 1
        waiting = self._waiting.pop(study_id, None)
        if waiting is not None:
            waiting.set()

    async def wait(self, study_id: str, *, seen: int, timeout_s: float | None = None) -> None:
        """Until the study is newer than `seen` or the time is up. Unavailable when the coordinator stops."""
        if not self._closed and self.version(study_id) == seen and (timeout_s is None or timeout_s > 0):
            try:
                async with asyncio.timeout(timeout_s):
                    await self._waiting[study_id].wait()
            except TimeoutError:
                return
        if self._closed:
            raise Unavailable(
                "The coordinator is stopping. Ask again when it is back; the study goes on then."
            )

    def close(self) -> None:
        """Wake everybody for good."""
        self._closed = True
        for waiting in self._waiting.values():
            waiting.set()


class Phase(enum.Enum):
    """What a hospital is doing for a study."""

    FETCHING = "fetching"
    TRAINING = "training"
    SENDING = "sending"
    CALIBRATING = "calibrating"


@dataclass(frozen=True)
class Progress:
    """`fraction` is 0 to 1 within the phase."""

    phase: Phase
    fraction: float


class ProgressBoard:
    """The last progress of each hospital in each study. Lost in a restart, and nobody minds."""

    def __init__(self) -> None:
        self._progress: defaultdict[str, dict[str, Progress]] = defaultdict(dict)

    def set(self, study_id: str, hospital: str, progress: Progress) -> None:
        """Overwrite what was known."""
        self._progress[study_id][hospital] = progress

    def of(self, study_id: str, hospital: str) -> Progress | None:
        """The last progress, or None."""
        return self._progress.get(study_id, {}).get(hospital)

    def clear(self, study_id: str) -> None:
        """A round ended: what was reported belongs to the past."""
        self._progress.pop(study_id, None)
