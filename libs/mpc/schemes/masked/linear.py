"""Beaver multiplication with masks that are reused for every input: linear layers.

With a = l_x and b = l_w as the triple's inputs, the openings of Beaver's multiplication (1991) exist
already: they are m_x and m_w. z = x*w = m_x*m_w - m_x*l_w - l_x*m_w + l_x*l_w for any bilinear *.
The dealer shares c = l_x*l_w; evaluator j computes u_j = c_j - l_xj*m_w (+ bias) before the input
exists. Online it is one product m_x*W_j + u_j with W_1 = m_w - l_w1, W_2 = -l_w2, and no message.
The mask of w is drawn once per model version; it is never opened under another m.
"""

from __future__ import annotations

from collections.abc import Callable

from libs.mpc.cost import Cost, costs
from libs.mpc.ring import Ring, RingArray
from libs.mpc.schemes.masked.tape import DealerTape, EvaluatorTape

Bilinear = Callable[[RingArray, RingArray], RingArray]
"""(x, w) -> x*w, linear in each argument; batch first."""


def linear_cost(n: int, ring: Ring) -> Cost:
    """One dealt ring element per output value; no round."""
    return Cost(dealt_bytes=n * ring.element_bytes)


def deal_linear(
    tape: DealerTape, label: str, x_mask: RingArray, w_mask: RingArray, product: Bilinear, ring: Ring
) -> None:
    """Share c = l_x * l_w."""
    c = product(x_mask, w_mask)
    c -= tape.first_draws(f"{label}/dealt").ring(c.shape, ring)
    tape.correct(c)


def prepare_linear(
    tape: EvaluatorTape,
    label: str,
    x_mask: RingArray,
    w_masked: RingArray,
    bias_share: RingArray | None,
    product: Bilinear,
    ring: Ring,
) -> RingArray:
    """u_j = c_j - l_xj * m_w + bias_j; `bias_share` broadcasts over the product's shape."""
    minus = product(x_mask, w_masked)
    tape.open_dealt(f"{label}/dealt")
    u = tape.dealt(minus.shape, ring.dtype) - minus
    if bias_share is not None:
        u += bias_share
    return u


@costs(linear_cost)
def linear(m: RingArray, w_share: RingArray, u: RingArray, product: Bilinear) -> RingArray:
    """This evaluator's share of x*w + bias. One product, no message (protocol section 3)."""
    z = product(m, w_share)
    z += u
    return z
