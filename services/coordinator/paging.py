"""Page tokens: the key behind which the next page begins, bound to the list it belongs to."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json

from libs.core.errors import InvalidInput

DEFAULT_SIZE = 100
MAX_SIZE = 1000


def page_size(requested: int) -> int:
    """The size to use. InvalidInput above MAX_SIZE: cutting it would look like the list's end."""
    if requested > MAX_SIZE:
        raise InvalidInput(f"A page has at most {MAX_SIZE} entries. Ask for fewer and follow the page token.")
    return requested or DEFAULT_SIZE


def to_token(key: str, *, listing: object) -> str:
    """A token for the page after `key`; empty for the last page. `listing` is the list's name and filter."""
    if not key:
        return ""
    return base64.urlsafe_b64encode(json.dumps([_digest(listing), key]).encode()).decode()


def from_token(token: str, *, listing: object) -> str:
    """The key in the token. InvalidInput if it is none of ours, or another list's."""
    if not token:
        return ""
    try:
        digest, key = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, TypeError):
        digest, key = "", ""
    if digest != _digest(listing) or not isinstance(key, str):
        raise InvalidInput("The page token is not from this list. Begin again without one.")
    return key


def _digest(listing: object) -> str:
    return hashlib.sha256(repr(listing).encode()).hexdigest()[:16]
