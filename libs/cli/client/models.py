"""Bringing a model that was trained elsewhere: compiled here, its weights dealt to the parties as shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libs.cli.client.catalogue import list_models
from libs.cli.client.session import CALL_TIMEOUT_S, plain_errors
from libs.core.errors import InvalidInput, NotFound
from libs.core.ids import new_id
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from libs.rpc.share_client import deal_vector
from libs.secure_nn.calibrate import calibrate
from libs.secure_nn.compile import compile_module
from libs.secure_nn.encode import encode_parameters

if TYPE_CHECKING:
    import torch
    from torch import nn

    from libs.cli.client.session import Session
    from libs.mpc.ring import RingArray
    from libs.secure_nn.plan import Plan


@plain_errors
async def import_model(
    session: Session,
    *,
    name: str,
    module: nn.Module,
    calibration: torch.Tensor,
    use: types_pb2.ModelUse | None = None,
) -> coordinator_pb2.Model:
    """Compile `module` for the ranges it shows on `calibration` (N, C, H, W), register the plan, deal the
    weights. Who imports a model may ask it, and so may those in `use`.

    The coordinator gets the plan (architecture, scales, costs); the weights go to the parties alone, as
    shares.
    """
    module.eval()
    channels, height, width = calibration.shape[1:]
    plan = compile_module(
        module, input_shape=(channels, height, width), bounds=calibrate(module, calibration)
    )
    parameters = encode_parameters(module, plan)
    return await import_plan(session, name=name, plan=plan, parameters=parameters, use=use)


@plain_errors
async def import_plan(
    session: Session,
    *,
    name: str,
    plan: Plan,
    parameters: RingArray,
    use: types_pb2.ModelUse | None = None,
) -> coordinator_pb2.Model:
    """Register a plan and deal its encoded parameters (plan.parameter_length,) to the parties."""
    answer = await session.coordinator.ImportModel(
        coordinator_pb2.ImportModelRequest(
            request_id=new_id("request"), name=name, plan=plan.to_json(), use=use
        ),
        timeout=CALL_TIMEOUT_S,
    )
    await deal_vector(
        parameters,
        ring=plan.ring,
        ref=types_pb2.VectorRef(model_id=answer.model.model_id),
        channels=session.party_channels(answer.parties),
    )
    return answer.model


async def choose_model(session: Session, wanted: str | None) -> coordinator_pb2.Model:
    """The model with this id or name; without one, the only model there is."""
    models = await list_models(session)
    if wanted is None:
        if len(models) == 1:
            return models[0]
        if not models:
            raise NotFound("There is no model to ask yet. Train one with `trefoil study create`.")
        names = ", ".join(model.model_id for model in models)
        raise InvalidInput(f"There are {len(models)} models; choose one with --model: {names}.")
    for model in models:
        if wanted in {model.model_id, model.name}:
            return model
    raise NotFound(f"There is no model {wanted}. See: trefoil model list")
