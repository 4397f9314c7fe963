"""CoordinatorService: messages in, messages out. What happens in between is in the modules it calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from libs.core.errors import Unauthenticated
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2 as messages
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2_grpc
from libs.rpc.caller import current_caller
from services.coordinator import wire
from services.coordinator.catalogue import Catalogue, normal_tags
from services.coordinator.changes import ProgressBoard
from services.coordinator.domain import training_model_id
from services.coordinator.hospitals import Hospitals
from services.coordinator.models import Models
from services.coordinator.ports import DatasetQuery, PartyAddress
from services.coordinator.studies import Person, Studies, StudyRequest

Context = grpc.aio.ServicerContext[Any, Any]


class CoordinatorService(coordinator_pb2_grpc.CoordinatorServiceServicer):
    """The coordinator's RPCs. Who may call which is in libs/rpc/access_policy.py."""

    def __init__(
        self,
        *,
        hospitals: Hospitals,
        catalogue: Catalogue,
        studies: Studies,
        models: Models,
        board: ProgressBoard,
        parties: tuple[PartyAddress, ...],
    ) -> None:
        self._hospitals, self._catalogue, self._studies = hospitals, catalogue, studies
        self._models, self._board, self._parties = models, board, parties

    async def Attach(
        self, request_iterator: AsyncIterator[messages.HospitalEvent], _context: Context
    ) -> AsyncIterator[messages.CoordinatorOrder]:
        """A hospital's link, for as long as it lasts."""
        async for order in self._hospitals.serve(current_caller().identity, aiter(request_iterator)):
            yield order

    async def DescribeFederation(
        self, _request: messages.DescribeFederationRequest, _context: Context
    ) -> messages.DescribeFederationResponse:
        """Parties and hospitals."""
        nodes = [wire.node_message(node) for node in self._catalogue.nodes()]
        return messages.DescribeFederationResponse(parties=wire.party_messages(self._parties), nodes=nodes)

    async def SearchDatasets(
        self, request: messages.SearchDatasetsRequest, _context: Context
    ) -> messages.SearchDatasetsResponse:
        """Datasets that match."""
        query = DatasetQuery(normal_tags(request.tags), request.name_contains, request.min_images)
        page = self._catalogue.search(query, size=request.page_size, token=request.page_token)
        datasets = [wire.dataset_message(dataset) for dataset in page.items]
        return messages.SearchDatasetsResponse(datasets=datasets, next_page_token=page.next_key)

    async def CreateStudy(
        self, request: messages.CreateStudyRequest, _context: Context
    ) -> messages.CreateStudyResponse:
        """A new study; its first version is to be dealt by the caller."""
        study = await self._studies.create(
            _person(),
            StudyRequest(
                request_id=request.request_id,
                title=request.title,
                training_plan=request.training_plan,
                dataset_ids=tuple(request.dataset_ids),
                parameters=request.parameters,
            ),
        )
        return messages.CreateStudyResponse(
            study=wire.study_message(study, self._board),
            initial_model_id=training_model_id(study.study_id, 0),
            parties=wire.party_messages(self._parties),
        )

    async def StartStudy(
        self, request: messages.StartStudyRequest, _context: Context
    ) -> messages.StartStudyResponse:
        """The first version is dealt."""
        study = self._studies.start(_person(), request.study_id)
        return messages.StartStudyResponse(study=wire.study_message(study, self._board))

    async def GetStudy(
        self, request: messages.GetStudyRequest, _context: Context
    ) -> messages.GetStudyResponse:
        """One study."""
        study = self._studies.get(request.study_id)
        return messages.GetStudyResponse(study=wire.study_message(study, self._board))

    async def ListStudies(
        self, request: messages.ListStudiesRequest, _context: Context
    ) -> messages.ListStudiesResponse:
        """All studies, without their rounds."""
        page = self._studies.page(size=request.page_size, token=request.page_token)
        studies = [wire.study_summary(study) for study in page.items]
        return messages.ListStudiesResponse(studies=studies, next_page_token=page.next_key)

    async def CancelStudy(
        self, request: messages.CancelStudyRequest, _context: Context
    ) -> messages.CancelStudyResponse:
        """End a study."""
        study = self._studies.cancel(_person(), request.study_id)
        return messages.CancelStudyResponse(study=wire.study_message(study, self._board))

    async def WatchStudy(
        self, request: messages.WatchStudyRequest, _context: Context
    ) -> AsyncIterator[messages.WatchStudyResponse]:
        """A study now and at every change."""
        async for study in self._studies.watch(request.study_id):
            yield messages.WatchStudyResponse(study=wire.study_message(study, self._board))

    async def ImportModel(
        self, request: messages.ImportModelRequest, _context: Context
    ) -> messages.ImportModelResponse:
        """A model that its owner will deal."""
        model = await self._models.register(
            _person(),
            request_id=request.request_id,
            name=request.name,
            plan=request.plan,
            use=wire.model_use(request.use),
        )
        return messages.ImportModelResponse(
            model=wire.model_message(model), parties=wire.party_messages(self._parties)
        )

    async def ListModels(
        self, request: messages.ListModelsRequest, _context: Context
    ) -> messages.ListModelsResponse:
        """All models, without their plans."""
        page = self._models.page(size=request.page_size, token=request.page_token)
        models = [wire.model_summary(model) for model in page.items]
        return messages.ListModelsResponse(models=models, next_page_token=page.next_key)

    async def OpenPrediction(
        self, request: messages.OpenPredictionRequest, _context: Context
    ) -> messages.OpenPredictionResponse:
        """Parties and roles for one encrypted prediction."""
        opened = await self._models.open_prediction(
            current_caller().identity.uri, model_id=request.model_id, batch=request.batch
        )
        return wire.prediction_message(opened)


def _person() -> Person:
    """Who calls. The access policy asks these methods' callers for a token, so there is one."""
    caller = current_caller()
    if caller.token is None:
        raise Unauthenticated("This needs a token that says who you are. Get one with: trefoil keys token")
    return Person(caller.identity.uri, caller.token.subject)
