"""Whose image a file is, from the names that the public pediatric radiographs carry."""

from __future__ import annotations

import re

_PERSON = re.compile(r"^(person\d+)(?:_|$)", re.IGNORECASE)
_NORMAL = re.compile(r"^(?:NORMAL2-)?(IM-\d+)(?:-|$)", re.IGNORECASE)


def patient_of(stem: str) -> str:
    """The patient named by a file name without its suffix.

    `person12_virus_3` and `person12_bacteria_4` are `person12`; `IM-0115-0001` and `NORMAL2-IM-0115-0002`
    are both `IM-0115`. Any other name is a patient of its own, which is all that can be known: give a
    `labels.csv` then.
    """
    if match := _PERSON.match(stem):
        return match[1].lower()
    if match := _NORMAL.match(stem):
        return match[1].upper()
    return stem
