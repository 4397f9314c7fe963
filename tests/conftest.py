"""Settings of all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# A change lands or not by what it does, not by which examples were drawn; people's runs draw new ones.
settings.register_profile("ci", derandomize=True, print_blob=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
