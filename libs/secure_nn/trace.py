"""From a torch module to a graph of operations, with torch.fx; no model is special-cased."""

from __future__ import annotations

import copy
import operator
from typing import Any

import torch
from torch import fx, nn

from libs.core.errors import InvalidInput
from libs.secure_nn import layers
from libs.secure_nn.errors import DEFAULT_WAY_ROUND, WAYS_ROUND, LayerUnsupported, Problem, UnsupportedModel
from libs.secure_nn.graph import Graph, Node
from libs.secure_nn.layers.image import Image
from libs.secure_nn.registry import Call, Target, reader_of
from libs.secure_nn.rewrite import simplify

EXAMPLE_BATCH = 2


def build_graph(module: nn.Module, *, input_shape: tuple[int, int, int]) -> Graph:
    """The module in evaluation mode, BatchNorm folded, ReLU behind max-pooling.

    The structure and the names depend on the architecture alone, never on weights, so that a
    coordinator with an untrained module and a hospital with the trained one see the same graph.
    Raises UnsupportedModel with all layers that have no reader, and InvalidInput when the module
    does not take images of this shape.
    """
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise InvalidInput(f"An image has a shape (channels, height, width), not {input_shape}.")
    layers.load_all()
    return simplify(_read_graph(*_trace(module, input_shape)))


def _trace(module: nn.Module, input_shape: tuple[int, int, int]) -> tuple[fx.GraphModule, dict[str, Any]]:
    # A copy, because tracing in evaluation mode must not change the caller's module.
    frozen = copy.deepcopy(module).eval().to("cpu", torch.float32)
    # A bare torch layer would be traced into its innards; as a child it stays one layer.
    root = nn.Sequential(frozen) if fx.Tracer().is_leaf_module(frozen, "") else frozen
    try:
        traced = fx.symbolic_trace(root)
    except (fx.proxy.TraceError, TypeError, RuntimeError) as error:
        way_round = "Write forward() without branches and loops that depend on tensors."
        problem = Problem("forward()", f"torch.fx cannot trace it ({error})", way_round)
        raise UnsupportedModel([problem]) from error
    # Blank images rather than torch's shape-only "meta" tensors: those import for seconds.
    examples = _Examples(traced)
    try:
        with torch.no_grad():
            examples.run(torch.zeros(EXAMPLE_BATCH, *input_shape))
    except (RuntimeError, ValueError, TypeError) as error:
        cause = str(error.__cause__ or error).strip().splitlines()[0]
        raise InvalidInput(f"The model does not take images of shape {input_shape}: {cause}") from error
    return traced, examples.results


class _Examples(fx.Interpreter):
    """Runs the model once and keeps, by name, what every fx node gave: tensors and plain numbers alike."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.results: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.results[n.name] = super().run_node(n)
        return self.results[n.name]


def _read_graph(traced: fx.GraphModule, results: dict[str, Any]) -> Graph:
    problems: list[Problem] = []
    nodes: list[Node] = []
    tensor_nodes = [node for node in traced.graph.nodes if isinstance(results[node.name], torch.Tensor)]
    placeholders = [node for node in traced.graph.nodes if node.op == "placeholder"]
    for node in tensor_nodes:
        if node.op == "placeholder" and node is placeholders[0]:
            nodes.append(Node(node.name, Image(), (), tuple(results[node.name].shape[1:])))
        elif node.op in ("call_module", "call_function", "call_method"):
            try:
                nodes.append(_read_call(node, traced, results))
            except LayerUnsupported as error:
                problems.append(Problem(_layer_name(node), error.reason, error.way_round))
        elif node.op != "output":
            way_round = "Give forward() one image batch, and put weights into layers."
            problems.append(
                Problem(node.name, "a tensor that is neither the image nor a layer's output", way_round)
            )
    output = next(node for node in traced.graph.nodes if node.op == "output")
    if not isinstance(output.args[0], fx.Node) or not isinstance(results[output.args[0].name], torch.Tensor):
        problems.append(Problem("forward()", "it returns more than one tensor", "Return the logits alone."))
    if problems:
        raise UnsupportedModel(problems)
    graph = Graph(tuple(nodes)).reaching(output.args[0].name)
    if not isinstance(graph.nodes[0].operation, Image):
        raise UnsupportedModel([Problem("forward()", "the output does not depend on the image", "Use it.")])
    return graph


def _layer_name(node: fx.Node) -> str:
    return str(node.target) if node.op == "call_module" else node.name


def _read_call(node: fx.Node, traced: fx.GraphModule, results: dict[str, Any]) -> Node:
    module = traced.get_submodule(str(node.target)) if node.op == "call_module" else None
    target: Target = type(module) if module is not None else node.target
    kind = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    reader = reader_of(target)
    if reader is None:
        raise LayerUnsupported(f"{kind} is not supported", way_round=WAYS_ROUND.get(kind, DEFAULT_WAY_ROUND))
    inputs: list[str] = []

    def resolve(argument: fx.Node) -> Any:
        if isinstance(results[argument.name], torch.Tensor):
            inputs.append(argument.name)
        return results[argument.name]

    args = fx.node.map_arg(node.args, resolve)
    kwargs = fx.node.map_arg(node.kwargs, resolve)
    if _overwrites(node, module) and inputs and _used_later(node, inputs[0]):
        raise LayerUnsupported(
            f"{kind} overwrites a tensor that is used again later",
            way_round="Use inplace=False, or x + y instead of x += y.",
        )
    result = results[node.name]
    if result.ndim < 2 or result.shape[0] != EXAMPLE_BATCH:
        raise LayerUnsupported(
            f"{kind} mixes the images of a batch", way_round="Keep the first axis as it is."
        )
    operation = reader(Call(module, args, kwargs, result))
    return Node(node.name, operation, tuple(inputs), tuple(result.shape[1:]))


def _overwrites(node: fx.Node, module: nn.Module | None) -> bool:
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    in_name = node.op != "call_module" and (
        name.endswith("_") or node.target in (operator.iadd, operator.isub)
    )
    return in_name or bool(getattr(module, "inplace", False)) or bool(node.kwargs.get("inplace", False))


def _used_later(node: fx.Node, name: str) -> bool:
    """Whether a node after this one reads the overwritten tensor; its own result has its own name."""
    order = {other: position for position, other in enumerate(node.graph.nodes)}
    overwritten = next(other for other in node.graph.nodes if other.name == name)
    return any(order[user] > order[node] for user in overwritten.users)
