"""Reading files as a data set, for their owner. Needs no torch, so it starts fast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from libs.core.errors import TrefoilError
from services.hospital_node.worker.datasets import Datasets, owners_text
from services.hospital_node.worker.frames import Frame


def inspect(request: Frame, datasets: Datasets, _progress: Callable[[float], None]) -> Frame:
    """What there is to learn from. Errors name the file: this answer goes to the owner only."""
    roots = [Path(root) for root in request.fields["data_roots"]]
    try:
        found = datasets.inspect(Path(request.fields["path"]), data_roots=roots)
    except TrefoilError as error:
        raise type(error)(owners_text(error, data_roots=roots)) from None
    return Frame("done", fields=asdict(found))
