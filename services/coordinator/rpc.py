"""CoordinatorService: messages in, messages out. What happens in between is in the modules it calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeVar

import grpc

from libs.core.errors import InvalidInput, Unauthenticated
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2 as messages
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2_grpc
from libs.rpc.caller import current_caller
from libs.rpc.peer_key import peer_key_sha256
from libs.rpc.tokens import Role
from services.coordinator import wire
from services.coordinator.access import AccessRequests
from services.coordinator.associations import Associations, Decision
from services.coordinator.catalogue import Catalogue, query_of
from services.coordinator.changes import ProgressBoard
from services.coordinator.domain import training_model_id
from services.coordinator.hospitals import Hospitals
from services.coordinator.models import Models
from services.coordinator.ports import PartyAddress
from services.coordinator.states import AssociationEvent, AssociationState
from services.coordinator.studies import Person, Studies, StudyRequest

_STATES: Mapping[int, AssociationState] = {
    messages.AssociationState.Value(f"ASSOCIATION_STATE_{state.name}"): state for state in AssociationState
}
_DECISIONS: Mapping[int, AssociationEvent] = {
    messages.ASSOCIATION_STATE_APPROVED: AssociationEvent.APPROVED,
    messages.ASSOCIATION_STATE_DENIED: AssociationEvent.DENIED,
    messages.ASSOCIATION_STATE_REVOKED: AssociationEvent.REVOKED,
}

Context = grpc.aio.ServicerContext[Any, Any]
T = TypeVar("T")


class CoordinatorService(coordinator_pb2_grpc.CoordinatorServiceServicer):
    """The coordinator's RPCs. Who may call which is in libs/rpc/access_policy.py."""

    def __init__(
        self,
        *,
        hospitals: Hospitals,
        associations: Associations,
        catalogue: Catalogue,
        access: AccessRequests,
        studies: Studies,
        models: Models,
        board: ProgressBoard,
        parties: tuple[PartyAddress, ...],
    ) -> None:
        self._hospitals, self._catalogue, self._studies = hospitals, catalogue, studies
        self._associations, self._access = associations, access
        self._models, self._board, self._parties = models, board, parties

    async def Attach(
        self, request_iterator: AsyncIterator[messages.HospitalEvent], context: Context
    ) -> AsyncIterator[messages.CoordinatorOrder]:
        """A hospital's link, for as long as it lasts."""
        orders = self._hospitals.serve(
            current_caller().identity, aiter(request_iterator), key_sha256=peer_key_sha256(context)
        )
        async for order in orders:
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
        page = self._catalogue.search(query_of(request), size=request.page_size, token=request.page_token)
        datasets = [wire.dataset_message(dataset) for dataset in page.items]
        return messages.SearchDatasetsResponse(datasets=datasets, next_page_token=page.next_key)

    async def ListAssociations(
        self, request: messages.ListAssociationsRequest, _context: Context
    ) -> messages.ListAssociationsResponse:
        """Keys with which hospitals asked to join."""
        state = None
        if request.state != messages.ASSOCIATION_STATE_UNSPECIFIED:
            state = _known(_STATES, request.state)
        page = self._associations.page(state, size=request.page_size, token=request.page_token)
        associations = [wire.association_message(association) for association in page.items]
        return messages.ListAssociationsResponse(associations=associations, next_page_token=page.next_key)

    async def DecideAssociation(
        self, request: messages.DecideAssociationRequest, _context: Context
    ) -> messages.DecideAssociationResponse:
        """The operator's word about one key."""
        decision = Decision(
            request_id=request.request_id,
            hospital=request.hospital_identity,
            key_sha256=request.key_sha256,
            event=_known(_DECISIONS, request.state),
            reason=request.reason,
        )
        association = self._associations.decide(_person(), decision)
        return messages.DecideAssociationResponse(association=wire.association_message(association))

    async def RequestAccess(
        self, request: messages.RequestAccessRequest, _context: Context
    ) -> messages.RequestAccessResponse:
        """A request for a hospital, which decides."""
        asked = self._access.ask(_person(), request)
        return messages.RequestAccessResponse(request=wire.access_request_message(asked))

    async def ListAccessRequests(
        self, request: messages.ListAccessRequestsRequest, _context: Context
    ) -> messages.ListAccessRequestsResponse:
        """The caller's own requests; an operator sees all."""
        owner = None if _is_operator() else _person()
        page = self._access.page(owner, size=request.page_size, token=request.page_token)
        requests = [wire.access_request_message(asked) for asked in page.items]
        return messages.ListAccessRequestsResponse(requests=requests, next_page_token=page.next_key)

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
                statement=request.statement,
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


def _is_operator() -> bool:
    token = current_caller().token
    return token is not None and token.role is Role.OPERATOR


def _known(table: Mapping[int, T], state: int) -> T:
    """What the state stands for. InvalidInput for one that this call does not take."""
    try:
        return table[state]
    except KeyError as error:
        names = ", ".join(messages.AssociationState.keys()[known] for known in sorted(table))
        raise InvalidInput(f"The state is one of {names}. Update the client.") from error
