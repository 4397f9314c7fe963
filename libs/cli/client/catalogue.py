"""Finding data and models: what is published where, and who is online."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from libs.cli.client.pages import PAGE_SIZE, all_pages
from libs.cli.client.session import CALL_TIMEOUT_S, plain_errors
from libs.core.errors import NotFound
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2

if TYPE_CHECKING:
    from libs.cli.client.session import Session


@plain_errors
async def search_datasets(
    session: Session,
    *,
    tags: Sequence[str] = (),
    name_contains: str = "",
    min_images: int = 0,
    modality: str = "",
    max_images: int = 0,
    online_only: bool = False,
) -> list[coordinator_pb2.Dataset]:
    """Every data set in the catalogue that has all of `tags` and fits the rest; `max_images` 0: any size."""

    async def fetch(token: str) -> coordinator_pb2.SearchDatasetsResponse:
        request = coordinator_pb2.SearchDatasetsRequest(
            tags=tags,
            name_contains=name_contains,
            min_images=min_images,
            modality=modality,
            max_images=max_images,
            online_only=online_only,
            page_size=PAGE_SIZE,
            page_token=token,
        )
        return await session.coordinator.SearchDatasets(request, timeout=CALL_TIMEOUT_S)

    return await all_pages(fetch, lambda page: page.datasets)


@plain_errors
async def list_models(session: Session) -> list[coordinator_pb2.Model]:
    """Every model that can be asked."""

    async def fetch(token: str) -> coordinator_pb2.ListModelsResponse:
        request = coordinator_pb2.ListModelsRequest(page_size=PAGE_SIZE, page_token=token)
        return await session.coordinator.ListModels(request, timeout=CALL_TIMEOUT_S)

    return await all_pages(fetch, lambda page: page.models)


@plain_errors
async def list_studies(session: Session) -> list[coordinator_pb2.Study]:
    """Every study."""

    async def fetch(token: str) -> coordinator_pb2.ListStudiesResponse:
        request = coordinator_pb2.ListStudiesRequest(page_size=PAGE_SIZE, page_token=token)
        return await session.coordinator.ListStudies(request, timeout=CALL_TIMEOUT_S)

    return await all_pages(fetch, lambda page: page.studies)


@plain_errors
async def describe_federation(session: Session) -> coordinator_pb2.DescribeFederationResponse:
    """The parties and the nodes, with who is online."""
    return await session.coordinator.DescribeFederation(
        coordinator_pb2.DescribeFederationRequest(), timeout=CALL_TIMEOUT_S
    )


@plain_errors
async def find_dataset(session: Session, dataset_id: str) -> coordinator_pb2.Dataset:
    """The data set of this id (hospital/name). Raises NotFound."""
    name = dataset_id.partition("/")[2]
    if name:
        for found in await search_datasets(session, name_contains=name):
            if found.dataset_id == dataset_id:
                return found
    raise NotFound(f"There is no data set {dataset_id!r}. See what there is: trefoil dataset search")
