"""From errors to plain words and exit codes."""

from __future__ import annotations

import json

import pytest

from libs.cli.failures import describe, exit_code_of, run_and_exit
from libs.core import errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidInput("x"), 2),
        (errors.FailedPrecondition("x"), 2),
        (errors.Unauthenticated("x"), 3),
        (errors.PermissionDenied("x"), 3),
        (errors.NotFound("x"), 4),
        (errors.Unavailable("x"), 5),
        (errors.DeadlineExceeded("x"), 5),
        (errors.PeerViolation(computation="c", sender=1, rule="r"), 6),
        (errors.Bug("x"), 70),
        (ValueError("x"), 70),
        (FileNotFoundError(2, "No such file", "a.png"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_family_of_errors_has_its_exit_code(error: BaseException, code: int) -> None:
    assert exit_code_of(error) == code


def _fails() -> None:
    raise errors.NotFound("There is no model m. See: trefoil model list")


def test_an_error_is_told_in_one_line_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_and_exit(_fails, as_json=False)
    printed = capsys.readouterr()
    assert stopped.value.code == 4
    assert printed.err == "trefoil: There is no model m. See: trefoil model list\n"
    assert printed.out == ""


def test_machines_get_the_error_as_json_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_and_exit(_fails, as_json=True)
    error = json.loads(capsys.readouterr().err)["error"]
    assert error["code"] == "not_found"


def test_a_library_that_says_which_file_is_missing_is_quoted() -> None:
    code, text = describe(FileNotFoundError("No such file or directory: m.safetensors"))
    assert (code, text) == ("os_error", "No such file or directory: m.safetensors.")


def test_an_unexpected_error_does_not_show_its_text() -> None:
    code, text = describe(ValueError("weights = [0.25, ...]"))
    assert code == "internal"
    assert "0.25" not in text
