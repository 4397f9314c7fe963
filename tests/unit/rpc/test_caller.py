"""The current caller belongs to one call."""

from __future__ import annotations

import pytest

from libs.core.errors import Bug
from libs.rpc.caller import Caller, calling_as, current_caller, current_request_id
from libs.rpc.identity import COORDINATOR


def test_outside_a_handler_there_is_no_caller() -> None:
    with pytest.raises(Bug):
        current_caller()
    assert current_request_id() is None


def test_a_caller_is_current_within_its_call_only() -> None:
    caller = Caller(COORDINATOR, None, "request-1")
    with calling_as(caller):
        assert current_caller() is caller
        assert current_request_id() == "request-1"
    assert current_request_id() is None
