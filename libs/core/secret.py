"""Values that must not be printed, compared by accident, or branched on."""

from __future__ import annotations

from typing import Generic, NoReturn, TypeVar

T = TypeVar("T")


class Secret(Generic[T]):
    """Holds a value that only `expose()` gives back.

    >>> Secret("hunter2")
    Secret(<redacted>)
    """

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def expose(self) -> T:
        """The value. Every call is a place to review."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(<redacted>)"

    __str__ = __repr__

    def __bool__(self) -> NoReturn:
        raise TypeError("a secret must not decide a branch; expose() it on purpose")

    def __eq__(self, other: object) -> NoReturn:
        raise TypeError("compare secrets with hmac.compare_digest")

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> NoReturn:
        raise TypeError("secrets are not serialised")
