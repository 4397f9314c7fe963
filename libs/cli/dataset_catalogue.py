"""`trefoil dataset search`, `show` and `mock`: what scientists see of data they never get."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from libs.cli.options import JsonOption, ProfileOption, TagsOption

if TYPE_CHECKING:
    from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2

DatasetArgument = Annotated[str, typer.Argument(metavar="DATASET", help="The data set (hospital/name).")]


def search(
    profile: ProfileOption,
    tag: TagsOption = None,
    name_contains: Annotated[str, typer.Option(help="Part of the name.")] = "",
    modality: Annotated[str, typer.Option(help="What the images are, for example 'chest X-ray'.")] = "",
    min_images: Annotated[int, typer.Option(min=0, help="Smallest number of images.")] = 0,
    max_images: Annotated[int, typer.Option(min=0, help="Largest number of images; 0: any.")] = 0,
    online: Annotated[bool, typer.Option("--online", help="Only hospitals that are attached now.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Find data sets of all hospitals in the catalogue (scientists)."""
    from libs.cli.client.catalogue import search_datasets
    from libs.cli.client.session import open_session, run
    from libs.cli.dataset_views import catalogue_view, images_in_words
    from libs.cli.output import print_json, print_table

    async def ask() -> list[coordinator_pb2.Dataset]:
        async with open_session(profile) as session:
            return await search_datasets(
                session,
                tags=tag or [],
                name_contains=name_contains,
                min_images=min_images,
                modality=modality,
                max_images=max_images,
                online_only=online,
            )

    datasets = run(ask())
    if as_json:
        print_json([catalogue_view(dataset) for dataset in datasets])
        return
    wanted = f" with all of the tags {', '.join(tag)}" if tag else ""
    print_table(
        ["data set", "hospital", ">images", "tags", "online", "description"],
        [
            [
                d.dataset_id,
                d.hospital_name,
                images_in_words(d.images, d.disclosure),
                ", ".join(d.tags),
                "yes" if d.online else "no",
                d.description,
            ]
            for d in datasets
        ],
        if_empty=f"No data set{wanted} was found. Try fewer tags, or none.",
    )


def show(dataset: DatasetArgument, profile: ProfileOption, as_json: JsonOption = False) -> None:
    """Everything that the catalogue says about a data set (scientists)."""
    from libs.cli.dataset_views import (
        catalogue_view,
        counts_in_words,
        images_in_words,
        schema_in_words,
    )
    from libs.cli.output import human_moment, plain, print_json, print_table, results

    found = _found(profile, dataset)
    if as_json:
        print_json(catalogue_view(found))
        return
    online = "attached now" if found.online else "not attached now"
    results().print(
        f"[bold]{plain(found.dataset_id)}[/], version {found.version}, of {plain(found.hospital_name)} "
        f"({online})."
    )
    if found.description:
        results().print(plain(found.description))
    rows = [
        ["images", images_in_words(found.images, found.disclosure)],
        ["by class", counts_in_words(found.disclosure, found.disclosed_counts)],
        ["what they are", schema_in_words(found.schema)],
        ["tags", ", ".join(found.tags)],
        ["licence", found.licence or "none named: ask the hospital"],
        ["content hash", found.content_hash or "not told"],
        ["mock", found.mock_hash or "none"],
        [
            "published",
            human_moment(found.published_at.ToDatetime()) if found.HasField("published_at") else "not told",
        ],
    ]
    print_table(["what", "told"], rows, if_empty="")
    if found.mock_hash:
        results().print(f"Made-up images of the same form: trefoil dataset mock {plain(found.dataset_id)}")


def mock(
    dataset: DatasetArgument,
    profile: ProfileOption,
    out: Annotated[Path, typer.Option(help="New file, ending in .npz.")] = Path("mock.npz"),
    as_json: JsonOption = False,
) -> None:
    """Make a data set's mock here: made-up images of its form, to run code against (scientists)."""
    from libs.cli.output import plain, print_json, results
    from libs.core.errors import NotFound
    from libs.data.mock import MockRecipe, write_mock

    found = _found(profile, dataset)
    if not found.mock_recipe:
        raise NotFound(f"The data set {dataset} has no mock. Its owner makes one by publishing it again.")
    recipe = MockRecipe.from_json(found.mock_recipe)
    made = write_mock(recipe, out, expected_hash=found.mock_hash)
    if as_json:
        print_json(
            {
                "dataset_id": found.dataset_id,
                "made_up": True,
                "path": str(out),
                "images": len(made),
                "images_per_class": made.class_counts,
                "side": recipe.side,
                "mock_hash": found.mock_hash,
            }
        )
        return
    classes = ", ".join(f"{count} {plain(name)}" for name, count in sorted(made.class_counts.items()))
    results().print(
        f"Wrote [bold]{plain(out)}[/]: {len(made)} made-up images ({classes}), {recipe.side} pixels a side.\n"
        "Nothing of the hospital's images is in them, and what a model learns from them means nothing. "
        "The hash is the published one."
    )


def _found(profile: Path, dataset_id: str) -> coordinator_pb2.Dataset:
    from libs.cli.client.catalogue import find_dataset
    from libs.cli.client.session import open_session, run

    async def ask() -> coordinator_pb2.Dataset:
        async with open_session(profile) as session:
            return await find_dataset(session, dataset_id)

    return run(ask())
