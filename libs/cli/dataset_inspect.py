"""`trefoil dataset inspect PATH`: what publishing would find, told to nobody but the hospital's own staff."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from libs.cli.options import JsonOption, ProfileOption


def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            help="Folder or .npz file on the hospital node's own disk; relative: taken from here."
        ),
    ],
    profile: ProfileOption,
    as_json: JsonOption = False,
) -> None:
    """Let the node check files without publishing them, and say what in them identifies somebody (staff)."""
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
    from libs.cli.dataset_views import identification_in_words, inspection_view, schema_in_words
    from libs.cli.output import plain, print_json, results
    from libs.rpc._generated.trefoil.hospital.v1 import hospital_pb2

    async def ask() -> hospital_pb2.InspectDatasetResponse:
        request = hospital_pb2.InspectDatasetRequest(path=str(path.absolute()))
        async with open_session(profile) as session:
            return await session.hospital.InspectDataset(request, timeout=10 * CALL_TIMEOUT_S)

    found = run(ask())
    if as_json:
        print_json(inspection_view(found))
        return
    classes = ", ".join(f"{count} {plain(name)}" for name, count in sorted(found.images_per_class.items()))
    results().print(
        f"{found.images} images of {found.patients} patients ({classes}). Nothing was published.\n"
        f"{plain(schema_in_words(found.schema))}\n"
        f"{plain(identification_in_words(found.identification))}"
    )
