"""A second factor: six digits of an authenticator app (RFC 6238), each good for one login."""

from __future__ import annotations

import hmac
import os
import re
from datetime import datetime

import pyotp
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from libs.core.errors import FailedPrecondition
from libs.core.secret import Secret

STEP_S = 30
STEPS_EITHER_WAY = 1
_NONCE_BYTES = 12
_CODE = re.compile(r"[0-9]{6}", re.ASCII)


class SecondFactors:
    """Makes and checks them. Their secrets are stored sealed (AES-256-GCM) and bound to their account."""

    def __init__(self, *, hospital: str, key: Secret[bytes]) -> None:
        self._hospital, self._cipher = hospital, AESGCM(key.expose())

    def new(self, account: str) -> tuple[bytes, Secret[str]]:
        """(sealed secret, `otpauth://` URI for the app) of a new factor."""
        secret = pyotp.random_base32()
        uri = pyotp.TOTP(secret).provisioning_uri(name=account, issuer_name=f"Trefoil {self._hospital}")
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, secret.encode("ascii"), _bound_to(account))
        return sealed, Secret(uri)

    def accepted_step(
        self, sealed: bytes, account: str, code: str, *, after_step: int, now: datetime
    ) -> int | None:
        """The 30-second step that `code` belongs to; None if it is wrong.

        The step before and after `now` are accepted too, for clocks that differ. Only steps later than
        `after_step`, that of the last accepted code: a code that somebody has watched is worth nothing.
        """
        if not _CODE.fullmatch(code.strip()):
            return None
        totp = pyotp.TOTP(self._opened(sealed, account))
        current = int(now.timestamp()) // STEP_S
        found = None
        for step in range(current - STEPS_EITHER_WAY, current + STEPS_EITHER_WAY + 1):
            same = hmac.compare_digest(totp.generate_otp(step), code.strip())
            if same and step > after_step:
                found = step
        return found

    def _opened(self, sealed: bytes, account: str) -> str:
        try:
            opened = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _bound_to(account))
        except InvalidTag as error:
            raise FailedPrecondition(
                "The second factor cannot be read: the node has another account.key than the one that sealed "
                "it. Ask the node's operator to restore the key."
            ) from error
        return opened.decode("ascii")


def _bound_to(account: str) -> bytes:
    return b"trefoil second factor of " + account.encode()
