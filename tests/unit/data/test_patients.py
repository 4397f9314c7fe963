"""Patients from the file names of the public radiographs."""

import pytest

from libs.data.patients import patient_of


@pytest.mark.parametrize(
    ("stem", "patient"),
    [
        ("person12_bacteria_46", "person12"),
        ("person12_virus_3", "person12"),
        ("person1203_virus_2052_1", "person1203"),
        ("IM-0115-0001", "IM-0115"),
        ("IM-0115-0001-0002", "IM-0115"),
        ("NORMAL2-IM-0115-0001", "IM-0115"),
        ("scan_7", "scan_7"),
        ("personal", "personal"),
        ("IM-x", "IM-x"),
    ],
)
def test_a_file_name_gives_its_patient(stem: str, patient: str) -> None:
    assert patient_of(stem) == patient


def test_two_numbers_with_a_common_beginning_are_two_patients() -> None:
    assert patient_of("person1_virus_6") != patient_of("person12_virus_6")
    assert patient_of("IM-011-0001") != patient_of("IM-0115-0001")
