"""How long calls may take."""

from __future__ import annotations

CALL_TIMEOUT_S = 60.0
"""For one call that is not a stream and moves no vector."""
