"""A model under masks: what each role keeps of the weights between predictions.

Three additive shares of the flat parameter vector become one masked vector (`masked/convert.py`). Each role
keeps what the linear layers need: the dealer the masks, evaluator j m_w and its share W_j. The masks are
drawn once for a model, a choice of roles and the current keys, and the weights are never opened under
other masks from those keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from libs.core.errors import InvalidInput
from libs.core.ids import PartyId
from libs.mpc.prg import MaskSource
from libs.mpc.program import Program
from libs.mpc.ring import RingArray
from libs.mpc.schemes.masked.convert import convert_as_dealer, convert_as_evaluator
from libs.mpc.schemes.masked.roles import Dealer, Evaluator, Roles
from libs.secure_nn.plan import Plan

_LABEL = "weights"


@dataclass(frozen=True, repr=False)
class DealerModel:
    """l_w of every parameter, in the plan's order and shapes."""

    masks: tuple[RingArray, ...]


@dataclass(frozen=True, repr=False)
class EvaluatorModel:
    """m_w and W_j of every parameter (W_1 = m_w - l_w1, W_2 = -l_w2).

    Preparing material takes both, evaluating W_j alone: `masked` is empty where nothing will be prepared.
    """

    masked: tuple[RingArray, ...]
    shares: tuple[RingArray, ...]


def cut_parameters(plan: Plan, vector: RingArray) -> tuple[RingArray, ...]:
    """The flat vector (parameter_length,) as the plan's parameters; views, not copies."""
    return tuple(vector[p.offset : p.offset + p.elements].reshape(p.shape) for p in plan.parameters)


def mask_model_program(
    me: PartyId, roles: Roles, sources: Mapping[PartyId, MaskSource], plan: Plan, share: RingArray
) -> Program[DealerModel | EvaluatorModel]:
    """What party `me` keeps, from its additive share (parameter_length,) of the encoded parameters.

    `sources` holds the masks of this computation shared with each peer. Rounds: the dealer's message,
    then one exchange between the evaluators.
    """
    if share.shape != (plan.parameter_length,) or share.dtype != plan.ring.dtype:
        raise InvalidInput("The stored share does not fit the model's plan; deal or release the model again.")
    if me == roles.dealer:
        dealer = Dealer(sources[roles.first], sources[roles.second])
        masks = yield from convert_as_dealer(dealer, roles, _LABEL, share, plan.ring)
        return DealerModel(cut_parameters(plan, masks))
    evaluator = Evaluator.of(me, roles, sources[roles.dealer])
    masked, mask = yield from convert_as_evaluator(evaluator, roles.dealer, _LABEL, share, plan.ring)
    mine = masked - mask if evaluator.lead else plan.ring.constant(0) - mask
    return EvaluatorModel(cut_parameters(plan, masked), cut_parameters(plan, mine))
