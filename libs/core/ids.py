"""Identifiers. Random ones come from the system; none carries meaning about a patient."""

from __future__ import annotations

import secrets
from typing import NewType

PartyId = NewType("PartyId", int)
"""0, 1 or 2."""

PARTIES: tuple[PartyId, PartyId, PartyId] = (PartyId(0), PartyId(1), PartyId(2))


def new_id(prefix: str) -> str:
    """`prefix-` and 80 random bits, in letters that are safe in names, paths and URLs."""
    return f"{prefix}-{secrets.token_hex(10)}"
