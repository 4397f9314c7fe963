"""Models that cannot be compiled, said all at once and with the way round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from libs.core.errors import InvalidInput


@dataclass(frozen=True)
class Problem:
    """One layer that cannot be compiled. `layer` is its name in the model."""

    layer: str
    reason: str
    way_round: str

    def __str__(self) -> str:
        return f"{self.layer}: {self.reason}. {self.way_round}"


class LayerUnsupported(Exception):
    """Raised by a layer's reader; the tracer collects it with the others."""

    def __init__(self, reason: str, *, way_round: str) -> None:
        super().__init__(reason)
        self.reason, self.way_round = reason, way_round


class UnsupportedModel(InvalidInput):
    """The model holds layers that have no secure counterpart. `problems` lists every one of them."""

    code = "unsupported_model"

    def __init__(self, problems: Sequence[Problem]) -> None:
        listing = "\n".join(f"- {problem}" for problem in problems)
        super().__init__(f"The model cannot run on shares as it is. Change these layers:\n{listing}")
        self.problems = tuple(problems)


class RangeTooWide(InvalidInput):
    """No ring has room for this layer's calibrated range at a useful precision."""

    code = "range_too_wide"

    def __init__(self, layer: str, rule: str, *, bits: int) -> None:
        super().__init__(
            f"Layer {layer!r} does not fit a {bits}-bit ring: {rule}. Normalise before it (BatchNorm2d), "
            "train with weight decay, or check that the calibration images are prepared as in training."
        )
        self.layer = layer


_NORMALISE = "Use BatchNorm2d: it folds into the layer before it and costs nothing."
_RELU = (
    "Use ReLU, ReLU6 or Hardtanh: other activations need exponentials or products, which cost many rounds."
)
_CLIENT = (
    "At the end of the model leave it out: whoever receives the logits applies it to them. "
    "Inside use ReLU or Hardtanh; gates and attention are not supported."
)
_CONVOLVE = "Use a convolutional classifier: attention and other layouts than (C, H, W) are not supported."
_DEPTH = "Leave it out of the model that is released: it does nothing outside training."

_ALTERNATIVES: tuple[tuple[str, str], ...] = (
    (
        "GroupNorm LayerNorm LayerNorm2d InstanceNorm2d LocalResponseNorm RMSNorm group_norm layer_norm",
        _NORMALISE,
    ),
    ("GELU SiLU ELU SELU LeakyReLU PReLU Mish Hardswish Hardsigmoid Tanh Softplus CELU", _RELU),
    ("gelu silu elu leaky_relu hardswish hardsigmoid mish prelu tanh softplus", _RELU),
    ("Softmax LogSoftmax Sigmoid LogSigmoid softmax log_softmax sigmoid argmax", _CLIENT),
    ("AdaptiveMaxPool2d adaptive_max_pool2d", "Use AdaptiveAvgPool2d, or MaxPool2d with a fixed kernel."),
    ("LPPool2d", "Use AvgPool2d or MaxPool2d."),
    ("ConvTranspose2d Upsample interpolate", "Use Conv2d; decoders are not supported."),
    ("LSTM GRU RNN MultiheadAttention Embedding", _CONVOLVE),
    ("matmul bmm einsum scaled_dot_product_attention permute transpose swapaxes expand getitem", _CONVOLVE),
    ("StochasticDepth stochastic_depth AlphaDropout alpha_dropout", _DEPTH),
    ("mul imul", "Use Conv2d for fixed factors; gates (squeeze and excitation) are not supported."),
)

WAYS_ROUND: dict[str, str] = {name: way for names, way in _ALTERNATIVES for name in names.split()}
"""What to use instead, by the name of the module class, function or method."""

DEFAULT_WAY_ROUND = (
    "Build the model from Conv2d, Linear, BatchNorm, ReLU, ReLU6, Hardtanh, MaxPool2d, AvgPool2d, "
    "AdaptiveAvgPool2d, Flatten, addition, subtraction, concatenation and Dropout, "
    "or add a file to libs/secure_nn/layers."
)
