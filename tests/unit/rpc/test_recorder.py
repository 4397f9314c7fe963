"""A recording can be read back, and one that was cut off says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from libs.core.errors import InvalidInput
from libs.rpc.recorder import Record, Recorder, read_records


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    monkeypatch.setenv("TREFOIL_TESTING", "1")
    return Recorder(tmp_path)


RECORDS = [Record("request", "/a/B", "unary", b""), Record("response", "/a/C", "stream", bytes(range(256)))]


def write(recorder: Recorder) -> None:
    for record in RECORDS:
        recorder.record(direction=record.direction, method=record.method, kind=record.kind, data=record.data)


def test_records_come_back_in_order(recorder: Recorder) -> None:
    write(recorder)
    assert list(read_records(recorder.path)) == RECORDS


def test_records_are_in_the_file_before_it_is_closed_and_a_second_recorder_appends(
    recorder: Recorder,
) -> None:
    write(recorder)
    write(Recorder(recorder.path.parent))
    assert list(read_records(recorder.path)) == RECORDS * 2


def test_a_recording_that_ends_early_says_so_wherever_it_was_cut(recorder: Recorder) -> None:
    write(recorder)
    whole = recorder.path.read_bytes()
    first = len(whole) - 256 - 4 - len("stream") - 4 - len("/a/C") - 4 - len("response") - 4
    for length in range(1, len(whole)):
        recorder.path.write_bytes(whole[:length])
        if length == first:
            assert list(read_records(recorder.path)) == RECORDS[:1]
            continue
        with pytest.raises(InvalidInput, match="middle of a message"):
            list(read_records(recorder.path))
