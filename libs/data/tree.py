"""What all folders of radiographs have in common."""

from __future__ import annotations

from pathlib import Path

TRAIN, TEST = ("train", "val"), ("test",)
"""Folders above the classes, if there are any: official parts to learn from, and to test on."""

_IGNORED = {"thumbs.db", "desktop.ini", "__macosx"}


def children(folder: Path) -> list[Path]:
    """Sorted by name, without what operating systems leave behind."""
    return sorted(
        (p for p in folder.iterdir() if not p.name.startswith(".") and p.name.lower() not in _IGNORED),
        key=lambda p: p.name,
    )
