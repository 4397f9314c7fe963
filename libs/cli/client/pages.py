"""Lists come in pages; commands want them whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol, TypeVar

PAGE_SIZE = 500

T = TypeVar("T")


class Page(Protocol):
    """What every list answer has."""

    @property
    def next_page_token(self) -> str: ...


P = TypeVar("P", bound=Page)


async def all_pages(fetch: Callable[[str], Awaitable[P]], items: Callable[[P], Iterable[T]]) -> list[T]:
    """The items of every page. `fetch` asks for the page behind a token; the first token is empty."""
    found: list[T] = []
    token = ""
    while True:
        page = await fetch(token)
        found += items(page)
        token = page.next_page_token
        if not token:
            return found
