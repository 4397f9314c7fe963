"""Simplifications that change neither results nor meaning, decided by structure alone."""

from __future__ import annotations

from dataclasses import replace

from libs.secure_nn.graph import Graph, Node
from libs.secure_nn.layers.batch_norm import Affine
from libs.secure_nn.layers.dropout import Nothing
from libs.secure_nn.layers.max_pool import MaxPool
from libs.secure_nn.layers.relu import Rectifier
from libs.secure_nn.layers.weighted import Weighted


def simplify(graph: Graph) -> Graph:
    """Identities dropped, BatchNorm folded, ReLU moved behind max-pooling."""
    return relu_after_max_pool(fold_batch_norm(drop_identities(graph)))


def drop_identities(graph: Graph) -> Graph:
    """Without dropout and the like."""
    changed: dict[str, Node | str] = {
        node.name: node.inputs[0] for node in graph.nodes if isinstance(node.operation, Nothing)
    }
    return graph.replaced(changed)


def fold_batch_norm(graph: Graph) -> Graph:
    """Each BatchNorm into the convolution or linear layer whose output only it uses."""
    for node in graph.nodes:
        current = graph.by_name[node.name]
        if not isinstance(current.operation, Affine):
            continue
        before = graph.by_name[current.inputs[0]]
        layer = before.operation
        if isinstance(layer, Weighted) and graph.only_consumer(before.name) is current:
            gain, offset = current.operation.gain, current.operation.offset
            folded = replace(before, operation=layer.with_affine(gain, offset))
            graph = graph.replaced({before.name: folded, current.name: before.name})
    return graph


def relu_after_max_pool(graph: Graph) -> Graph:
    """max(relu(a), relu(b)) = relu(max(a, b)): the pool leaves fewer values whose sign costs."""
    while (found := _relu_before_pool(graph)) is not None:
        graph = _swapped(graph, *found)
    return graph


def _relu_before_pool(graph: Graph) -> tuple[Node, Node] | None:
    for node in graph.nodes:
        pool = graph.only_consumer(node.name)
        if isinstance(node.operation, Rectifier) and pool is not None and isinstance(pool.operation, MaxPool):
            return node, pool
    return None


def _swapped(graph: Graph, relu: Node, pool: Node) -> Graph:
    """The pool where the ReLU was and the other way round, each with its own name."""
    early = Node(pool.name, pool.operation, relu.inputs, pool.shape)
    late = Node(relu.name, relu.operation, (pool.name,), pool.shape)
    moved = {relu.name: early, pool.name: late}
    nodes = []
    for node in graph.nodes:
        if node.name in moved:
            nodes.append(moved[node.name])
        else:
            inputs = tuple(relu.name if name == pool.name else name for name in node.inputs)
            nodes.append(replace(node, inputs=inputs))
    return Graph(tuple(nodes))
