"""What a hospital keeps of a study: private, whole or not at all, and gone when it should be."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest

from libs.core.errors import FailedPrecondition
from libs.fl.strategies.strategy import Opened
from services.hospital_node.worker.study_files import StudyFiles, folder_of, forget, forget_others


def own(value: float) -> dict[str, np.ndarray]:
    return {"control": np.full(3, value)}


def opened(number: int) -> Opened:
    values = np.arange(3) / 3 + number
    return Opened(number, values, values * 2, np.zeros(0), (values * 3, values * 4))


@pytest.fixture
def files(tmp_path: Path) -> StudyFiles:
    return StudyFiles(folder_of(tmp_path, "study-1"))


def test_what_is_kept_comes_back_with_the_same_bits(files: StudyFiles) -> None:
    files.keep_own(1, own(0.1), counted_round=0)
    files.keep_opened(opened(4))
    assert np.array_equal(files.own(1)["control"], own(0.1)["control"])  # type: ignore[index]
    found = files.opened()
    assert found is not None
    assert found.round == files.kept_up_to(4) == files.kept_up_to(9) == 4
    for name in ("version", "weights", "shared"):
        assert np.array_equal(getattr(found, name), getattr(opened(4), name))
    assert all(map(np.array_equal, found.moments, opened(4).moments))


def test_versions_behind_the_one_that_is_wanted_are_read_from_the_first(files: StudyFiles) -> None:
    assert files.kept_up_to(3) == -1
    files.keep_opened(opened(4))
    assert files.kept_up_to(3) == -1


def test_files_are_private(files: StudyFiles, tmp_path: Path) -> None:
    files.keep_own(1, own(1), counted_round=0)
    files.keep_opened(opened(0))
    folder = folder_of(tmp_path, "study-1")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_only_what_the_next_rounds_may_start_from_is_kept(files: StudyFiles, tmp_path: Path) -> None:
    files.keep_own(1, own(1), counted_round=0)
    files.keep_own(2, own(2), counted_round=1)
    files.keep_own(3, own(3), counted_round=1)  # the second round did not count for this hospital
    files.keep_opened(opened(2))
    files.keep_opened(opened(3))
    names = sorted(path.name for path in folder_of(tmp_path, "study-1").iterdir())
    assert names == ["opened-3.npz", "own-1.npz", "own-3.npz"]


def test_a_missing_or_damaged_own_state_is_refused_and_a_damaged_reading_begins_anew(
    files: StudyFiles, tmp_path: Path
) -> None:
    assert files.own(0) is None
    with pytest.raises(FailedPrecondition, match="round 1"):
        files.own(1)
    files.keep_own(1, own(1), counted_round=0)
    files.keep_opened(opened(3))
    damaged = folder_of(tmp_path, "study-1") / "own-1.npz"
    damaged.write_bytes(
        damaged.read_bytes().replace(own(1)["control"].tobytes(), own(2)["control"].tobytes())
    )
    cut = folder_of(tmp_path, "study-1") / "opened-3.npz"
    cut.write_bytes(cut.read_bytes()[:-40])
    with pytest.raises(FailedPrecondition, match="damaged"):
        files.own(1)
    assert files.kept_up_to(3) == -1


def test_a_file_that_was_half_written_is_never_read(files: StudyFiles, tmp_path: Path) -> None:
    files.keep_own(1, own(1), counted_round=0)

    class Broken:
        def __array__(self, *_: object, **__: object) -> np.ndarray:
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        files.keep_own(1, {"control": Broken()}, counted_round=0)  # type: ignore[dict-item]
    assert files.own(1) is not None
    assert [path.name for path in folder_of(tmp_path, "study-1").iterdir()] == ["own-1.npz"]


def test_a_study_that_ended_leaves_nothing_and_others_stay(tmp_path: Path) -> None:
    for study_id in ("study-1", "study-2", "../../etc"):
        StudyFiles(folder_of(tmp_path, study_id)).keep_own(1, own(1), counted_round=0)
        assert folder_of(tmp_path, study_id).parent == tmp_path / "studies"
    forget(tmp_path, "study-1")
    assert not folder_of(tmp_path, "study-1").exists()
    forget_others(tmp_path, {"study-2"})
    assert [path.name for path in (tmp_path / "studies").iterdir()] == [folder_of(tmp_path, "study-2").name]
