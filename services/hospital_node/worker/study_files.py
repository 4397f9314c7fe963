"""What this hospital keeps for itself of a study: its own state by round, and what versions mean so far.

One folder for each study, readable by the node's account alone, gone when the study ends. Each file is
written beside its place and moved there when it is complete: a node that is killed finds the old or the new
one.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from libs.core.errors import FailedPrecondition
from libs.fl.strategies.strategy import Opened, OwnState

_OPENED = re.compile(r"opened-(\d+)\.npz")
_OWN = re.compile(r"own-(\d+)\.npz")
_STUDIES = "studies"


def folder_of(work_dir: Path, study_id: str) -> Path:
    """A study's folder. Its id comes from outside, so the name is a hash of it."""
    return work_dir.resolve() / _STUDIES / hashlib.sha256(study_id.encode()).hexdigest()[:32]


def forget(work_dir: Path, study_id: str) -> None:
    """Delete all that is kept of a study. Blocks."""
    shutil.rmtree(folder_of(work_dir, study_id), ignore_errors=True)


def forget_others(work_dir: Path, studies: set[str]) -> None:
    """Delete what is kept of all studies but these: the node may have been killed before it could. Blocks."""
    kept = {folder_of(work_dir, study_id) for study_id in studies}
    for folder in (work_dir.resolve() / _STUDIES).glob("*"):
        if folder not in kept:
            shutil.rmtree(folder, ignore_errors=True)


class StudyFiles:
    """The files of one study. Every method blocks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def opened_round(self) -> int:
        """The newest version whose meaning is kept here; -1 for none."""
        return max(self._rounds(_OPENED), default=-1)

    def kept_up_to(self, number: int) -> int:
        """The version from which one can go on to version `number`; -1 to begin with the first.

        Looks into the file: one that is damaged is as good as none.
        """
        opened = self.opened()
        return opened.round if opened is not None and opened.round <= number else -1

    def opened(self) -> Opened | None:
        """What the versions up to `opened_round` mean; None when nothing is kept, or not intact."""
        number = self.opened_round()
        values = self._load(f"opened-{number}.npz") if number >= 0 else None
        if values is None:
            return None
        moments = [values[name] for name in sorted(values) if name.startswith("moment_")]
        try:
            return Opened(number, values["version"], values["weights"], values["shared"], tuple(moments))
        except KeyError:
            return None

    def keep_opened(self, opened: Opened) -> None:
        """In the place of what was kept before."""
        moments = {f"moment_{i}": moment for i, moment in enumerate(opened.moments)}
        arrays = {"version": opened.version, "weights": opened.weights, "shared": opened.shared}
        self._save(f"opened-{opened.round}.npz", arrays | moments)
        for number in self._rounds(_OPENED) - {opened.round}:
            (self._folder / f"opened-{number}.npz").unlink(missing_ok=True)

    def own(self, round_number: int) -> OwnState | None:
        """What this hospital kept in a round; None for round 0, before any of its contributions counted.

        Raises FailedPrecondition when it is gone: going on without it would break the study's arithmetic.
        """
        if round_number == 0:
            return None
        values = self._load(f"own-{round_number}.npz")
        if values is None:
            raise FailedPrecondition(
                f"What this hospital kept from round {round_number} of the study is missing or damaged, so "
                "it cannot take part any more. Restore the node's work folder from a backup."
            )
        return values

    def keep_own(self, round_number: int, own: OwnState, *, counted_round: int) -> None:
        """What the next rounds may start from: this round's, if it counts, else still `counted_round`'s."""
        self._save(f"own-{round_number}.npz", own)
        for number in self._rounds(_OWN) - {round_number, counted_round}:
            (self._folder / f"own-{number}.npz").unlink(missing_ok=True)

    def _rounds(self, pattern: re.Pattern[str]) -> set[int]:
        names = [path.name for path in self._folder.glob("*.npz")]
        return {int(match.group(1)) for match in map(pattern.fullmatch, names) if match}

    def _load(self, name: str) -> dict[str, npt.NDArray[np.float64]] | None:
        try:
            with np.load(self._folder / name, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        except (OSError, ValueError, zipfile.BadZipFile):
            return None

    def _save(self, name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = self._folder / f".{name}.{secrets.token_hex(4)}"
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._folder / name)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
