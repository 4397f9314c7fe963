"""`trefoil dataset`: hospital staff publish descriptions of data, scientists search them.

Images stay where they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from libs.cli import dataset_budget, dataset_catalogue, dataset_inspect
from libs.cli.options import JsonOption, ProfileOption, RequestIdOption, TagsOption
from libs.data.disclosure import CountDisclosure

if TYPE_CHECKING:
    from libs.rpc._generated.trefoil.hospital.v1 import hospital_pb2

app = typer.Typer(
    help="Publish, list, withdraw and search data sets; make their mocks.", no_args_is_help=True
)


_FETCHING_TIMEOUT_S = 6 * 3600.0
"""An archive may take hours to hand out thousands of radiographs."""


@app.command()
def publish(
    name: Annotated[str, typer.Argument(help="Name of the data set, unique at this hospital.")],
    path: Annotated[
        Path,
        typer.Argument(
            help="Folder or .npz file on the hospital node's own disk; a relative path is taken from here. "
            "With --dicomweb, the list of labels there.",
        ),
    ],
    profile: ProfileOption,
    dicomweb: Annotated[
        str, typer.Option(metavar="SERVER", help="Fetch the images from this server of the node's settings.")
    ] = "",
    tag: TagsOption = None,
    description: Annotated[str, typer.Option(help="One sentence for scientists.")] = "",
    licence: Annotated[str, typer.Option(help="SPDX identifier or a sentence.")] = "",
    counts: Annotated[
        CountDisclosure,
        typer.Option(
            help="How much is told of the numbers of images. Withheld: your weight in training is the "
            "average of the other hospitals'."
        ),
    ] = CountDisclosure.ROUNDED,
    mock_images: Annotated[
        int, typer.Option(min=0, help="Made-up images to offer in its place.", show_default="200")
    ] = 0,
    request_id: RequestIdOption = "",
    as_json: JsonOption = False,
) -> None:
    """Let the node check a data set and put its description into the catalogue (staff).

    The same name again, with other files or words, is its next version. Approvals hold for the files that
    were approved.
    """
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
    from libs.cli.dataset_views import identification_in_words, identification_view, staff_view
    from libs.cli.output import plain, print_json, results
    from libs.core.ids import new_id
    from libs.rpc._generated.trefoil.hospital.v1 import hospital_pb2

    async def ask() -> hospital_pb2.PublishDatasetResponse:
        request = hospital_pb2.PublishDatasetRequest(
            name=name,
            description=description,
            tags=tag or [],
            path=str(path.absolute()),
            request_id=request_id or new_id("request"),
            licence=licence,
            disclosure=hospital_pb2.CountDisclosure.Value(f"COUNT_DISCLOSURE_{counts.name}"),
            mock_images=mock_images,
            dicomweb=dicomweb,
        )
        timeout_s = _FETCHING_TIMEOUT_S if dicomweb else 10 * CALL_TIMEOUT_S
        async with open_session(profile) as session:
            return await session.hospital.PublishDataset(request, timeout=timeout_s)

    answer = run(ask())
    if as_json:
        report = identification_view(answer.identification)
        print_json(staff_view(answer.dataset) | {"identification": report})
        return
    _tell(answer.dataset)
    results().print(plain(identification_in_words(answer.identification)))


def _tell(published: hospital_pb2.Dataset) -> None:
    """What was found, and what others see of it now."""
    from libs.cli.dataset_views import counts_in_words, images_in_words, schema_in_words
    from libs.cli.output import plain, results

    classes = ", ".join(
        f"{count} {plain(name)}" for name, count in sorted(published.images_per_class.items())
    )
    told = images_in_words(published.disclosed_images, published.disclosure)
    by_class = counts_in_words(published.disclosure, published.disclosed_counts)
    results().print(
        f"Published [bold]{plain(published.name)}[/], version {published.version}: {published.images} images "
        f"of {published.patients} patients ({classes}).\n"
        "In the catalogue now: name, description, tags, licence, the hash of the files, a mock, and\n"
        f"  images: {told}; by class: {plain(by_class)}\n"
        f"  {plain(schema_in_words(published.schema))}\n"
        "The images stay here."
    )
    if published.disclosed_images == 0:
        results().print("As the number is withheld, your weight in training is the average of the others'.")


@app.command("list")
def list_datasets(profile: ProfileOption, as_json: JsonOption = False) -> None:
    """What this hospital has published (staff)."""
    from libs.cli.client.pages import PAGE_SIZE, all_pages
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
    from libs.cli.dataset_views import disclosure_word, staff_view
    from libs.cli.output import print_json, print_table
    from libs.rpc._generated.trefoil.hospital.v1 import hospital_pb2

    async def ask() -> list[hospital_pb2.Dataset]:
        async with open_session(profile) as session:

            async def fetch(token: str) -> hospital_pb2.ListDatasetsResponse:
                request = hospital_pb2.ListDatasetsRequest(page_size=PAGE_SIZE, page_token=token)
                return await session.hospital.ListDatasets(request, timeout=CALL_TIMEOUT_S)

            return await all_pages(fetch, lambda page: page.datasets)

    datasets = run(ask())
    if as_json:
        print_json([staff_view(dataset) for dataset in datasets])
        return
    print_table(
        ["name", ">version", ">images", ">patients", "told", "tags", "path"],
        [
            [
                d.name,
                d.version,
                d.images,
                d.patients,
                disclosure_word(d.disclosure),
                ", ".join(d.tags),
                d.path,
            ]
            for d in datasets
        ],
        if_empty="Nothing is published. Publish something: trefoil dataset publish NAME PATH --tag x-ray",
    )


@app.command()
def versions(
    name: Annotated[str, typer.Argument(help="Name of the data set.")],
    profile: ProfileOption,
    as_json: JsonOption = False,
) -> None:
    """All that was ever published under a name, the newest first (staff)."""
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
    from libs.cli.dataset_views import disclosure_word, staff_view
    from libs.cli.output import human_moment, print_json, print_table
    from libs.rpc._generated.trefoil.hospital.v1 import hospital_pb2

    async def ask() -> list[hospital_pb2.Dataset]:
        request = hospital_pb2.ListDatasetVersionsRequest(name=name)
        async with open_session(profile) as session:
            answer = await session.hospital.ListDatasetVersions(request, timeout=CALL_TIMEOUT_S)
            return list(answer.versions)

    found = run(ask())
    if as_json:
        print_json([staff_view(version) for version in found])
        return
    print_table(
        [">version", ">images", "told", "content hash", "published", "until"],
        [
            [
                version.version,
                version.images,
                disclosure_word(version.disclosure),
                f"{version.content_hash[:12]}…",
                human_moment(version.published_at.ToDatetime()),
                human_moment(version.withdrawn_at.ToDatetime())
                if version.HasField("withdrawn_at")
                else "now",
            ]
            for version in found
        ],
        if_empty="",
    )


@app.command()
def withdraw(
    name: Annotated[str, typer.Argument(help="Name of the data set.")],
    profile: ProfileOption,
    request_id: RequestIdOption = "",
    as_json: JsonOption = False,
) -> None:
    """Take a data set out of the catalogue and out of every study (staff). Its images are not touched."""
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
    from libs.cli.output import plain, print_json, results
    from libs.core.ids import new_id
    from libs.rpc._generated.trefoil.hospital.v1 import hospital_pb2

    async def ask() -> None:
        request = hospital_pb2.WithdrawDatasetRequest(name=name, request_id=request_id or new_id("request"))
        async with open_session(profile) as session:
            await session.hospital.WithdrawDataset(request, timeout=CALL_TIMEOUT_S)

    run(ask())
    if as_json:
        print_json({"name": name, "withdrawn": True})
        return
    results().print(
        f"Withdrew [bold]{plain(name)}[/]. Its versions stay listed: trefoil dataset versions {plain(name)}"
    )


app.command()(dataset_inspect.inspect)
app.command()(dataset_budget.budget)
app.command()(dataset_catalogue.search)
app.command()(dataset_catalogue.show)
app.command()(dataset_catalogue.mock)
