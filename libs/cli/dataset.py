"""`trefoil dataset`: hospital staff publish descriptions of data, scientists search them.

Images stay where they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from libs.cli.options import JsonOption, ProfileOption
from libs.cli.privacy_options import DeltaOption, EpsilonOption, WithoutPrivacyOption

if TYPE_CHECKING:
    from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
    from libs.rpc._generated.trefoil.hospital.v1 import hospital_pb2

app = typer.Typer(help="Publish, list, withdraw and search data sets.", no_args_is_help=True)

TagsOption = Annotated[
    list[str] | None, typer.Option("--tag", "-t", help="A tag; repeat for more.", show_default=False)
]


@app.command()
def publish(
    name: Annotated[str, typer.Argument(help="Name of the data set, unique at this hospital.")],
    path: Annotated[
        Path,
        typer.Argument(
            help="Folder or .npz file on the hospital node's own disk; a relative path is taken from here.",
        ),
    ],
    profile: ProfileOption,
    tag: TagsOption = None,
    description: Annotated[str, typer.Option(help="One sentence for scientists.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Let the node check a data set and put its description into the catalogue (staff)."""
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
    from libs.cli.output import plain, print_json, results
    from libs.rpc._generated.trefoil.hospital.v1 import hospital_pb2

    async def ask() -> hospital_pb2.Dataset:
        request = hospital_pb2.PublishDatasetRequest(
            name=name, description=description, tags=tag or [], path=str(path.absolute())
        )
        async with open_session(profile) as session:
            return (await session.hospital.PublishDataset(request, timeout=10 * CALL_TIMEOUT_S)).dataset

    published = run(ask())
    if as_json:
        print_json(_staff_view(published))
        return
    classes = ", ".join(
        f"{count} {plain(name)}" for name, count in sorted(published.images_per_class.items())
    )
    results().print(
        f"Published [bold]{plain(published.name)}[/]: {published.images} images of {published.patients} "
        f"patients ({classes}).\n"
        "Name, description, tags and the number of images are now in the catalogue; the images stay here."
    )


@app.command("list")
def list_datasets(profile: ProfileOption, as_json: JsonOption = False) -> None:
    """What this hospital has published (staff)."""
    from libs.cli.client.pages import PAGE_SIZE, all_pages
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
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
        print_json([_staff_view(dataset) for dataset in datasets])
        return
    print_table(
        ["name", ">images", ">patients", "tags", "path"],
        [[d.name, d.images, d.patients, ", ".join(d.tags), d.path] for d in datasets],
        if_empty="Nothing is published. Publish something: trefoil dataset publish NAME PATH --tag x-ray",
    )


@app.command()
def withdraw(
    name: Annotated[str, typer.Argument(help="Name of the data set.")], profile: ProfileOption
) -> None:
    """Take a data set out of the catalogue (staff). Its images are not touched."""
    from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
    from libs.cli.output import plain, results
    from libs.rpc._generated.trefoil.hospital.v1 import hospital_pb2

    async def ask() -> None:
        request = hospital_pb2.WithdrawDatasetRequest(name=name)
        async with open_session(profile) as session:
            await session.hospital.WithdrawDataset(request, timeout=CALL_TIMEOUT_S)

    run(ask())
    results().print(f"Withdrew [bold]{plain(name)}[/].")


@app.command()
def budget(
    name: Annotated[str, typer.Argument(help="Name of the data set.")],
    profile: ProfileOption,
    epsilon: EpsilonOption = "",
    delta: DeltaOption = "",
    without_privacy: WithoutPrivacyOption = False,
    as_json: JsonOption = False,
) -> None:
    """Set what may be taken of a data set's privacy altogether, counting what was taken already (staff)."""
    from libs.cli.client import consent
    from libs.cli.output import plain, print_json, results
    from libs.cli.privacy_options import in_words, privacy_cost
    from libs.cli.request_views import balance_view
    from libs.core.errors import InvalidInput

    allowed = privacy_cost(epsilon=epsilon, delta=delta, without_privacy=without_privacy)
    if allowed is None:
        raise InvalidInput("Give a budget: --epsilon 8 --delta 1e-4, or --without-privacy.")
    balance = consent.set_budget(profile, name, allowed)
    if as_json:
        print_json(balance_view(balance))
        return
    results().print(
        f"Of [bold]{plain(name)}[/] may be taken: {in_words(balance.budget)}. Spent so far: "
        f"{in_words(balance.spent)}; left: {in_words(balance.left)}."
    )


@app.command()
def search(
    profile: ProfileOption,
    tag: TagsOption = None,
    name_contains: Annotated[str, typer.Option(help="Part of the name.")] = "",
    min_images: Annotated[int, typer.Option(min=0, help="Smallest number of images.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Find data sets of all hospitals in the catalogue (scientists)."""
    from libs.cli.client.catalogue import search_datasets
    from libs.cli.client.session import open_session, run
    from libs.cli.output import print_json, print_table

    async def ask() -> list[coordinator_pb2.Dataset]:
        async with open_session(profile) as session:
            return await search_datasets(
                session, tags=tag or [], name_contains=name_contains, min_images=min_images
            )

    datasets = run(ask())
    if as_json:
        print_json([_catalogue_view(dataset) for dataset in datasets])
        return
    wanted = f" with all of the tags {', '.join(tag)}" if tag else ""
    print_table(
        ["data set", "hospital", ">images", "tags", "online", "description"],
        [
            [
                d.dataset_id,
                d.hospital_name,
                d.images,
                ", ".join(d.tags),
                "yes" if d.online else "no",
                d.description,
            ]
            for d in datasets
        ],
        if_empty=f"No data set{wanted} was found. Try fewer tags, or none.",
    )


def _staff_view(dataset: hospital_pb2.Dataset) -> dict[str, Any]:
    return {
        "name": dataset.name,
        "description": dataset.description,
        "tags": list(dataset.tags),
        "path": dataset.path,
        "images": dataset.images,
        "patients": dataset.patients,
        "images_per_class": dict(dataset.images_per_class),
        "content_hash": dataset.content_hash,
        "published_at": dataset.published_at.ToJsonString(),
    }


def _catalogue_view(dataset: coordinator_pb2.Dataset) -> dict[str, Any]:
    return {
        "dataset_id": dataset.dataset_id,
        "name": dataset.name,
        "description": dataset.description,
        "tags": list(dataset.tags),
        "images": dataset.images,
        "hospital": dataset.hospital_name,
        "online": dataset.online,
    }
