"""What people sign before the coordinator passes it on (`libs/rpc/statements.py`)."""

from __future__ import annotations

from pathlib import Path

from libs.core.clock import Clock
from libs.core.errors import PermissionDenied
from libs.rpc._generated.trefoil.types.v1.types_pb2 import SignedStatement
from libs.rpc.statements import Statement, verify_statement


class Statements:
    """Checks statements against the CA that this coordinator's own links trust.

    Hospitals check them again and believe only that. Here it keeps rubbish out, and tells a client whose
    signature is wrong at once rather than days later.
    """

    def __init__(self, *, ca: Path, clock: Clock) -> None:
        self._ca, self._clock = ca, clock

    def verified(self, message: SignedStatement, *, kind: str, identity: str) -> Statement:
        """The statement, if the caller itself signed it.

        InvalidInput as `verify_statement`, PermissionDenied for somebody else's words.
        """
        statement = verify_statement(message, kind=kind, ca=self._ca.read_bytes(), now=self._clock.now())
        if statement.signer.uri != identity:
            raise PermissionDenied(
                f"The statement was signed by {statement.signer}, and you are {identity}. Sign it with the "
                "key of your own certificate."
            )
        return statement
