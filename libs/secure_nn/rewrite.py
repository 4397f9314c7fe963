"""Simplifications that change neither results nor meaning, decided by structure alone."""

from __future__ import annotations

from dataclasses import replace

from libs.secure_nn.graph import Graph, Node
from libs.secure_nn.layers.batch_norm import Affine
from libs.secure_nn.layers.cat import Concatenation
from libs.secure_nn.layers.clamp import Clamp
from libs.secure_nn.layers.dropout import Nothing
from libs.secure_nn.layers.max_pool import MaxPool
from libs.secure_nn.layers.narrow import Narrow
from libs.secure_nn.layers.relu import Rectifier
from libs.secure_nn.layers.weighted import Weighted
from libs.secure_nn.scales import accumulating


def simplify(graph: Graph) -> Graph:
    """Identities dropped, BatchNorm folded, ReLU moved behind concatenations and max-pooling, sums of
    products brought down once in front of concatenations."""
    graph = relu_after_concatenation(fold_batch_norm(drop_identities(graph)))
    return narrow_before_concatenation(relu_after_max_pool(graph))


def drop_identities(graph: Graph) -> Graph:
    """Without dropout and the like, and concatenations of one tensor."""
    changed: dict[str, Node | str] = {
        node.name: node.inputs[0]
        for node in graph.nodes
        if isinstance(node.operation, Nothing)
        or (isinstance(node.operation, Concatenation) and len(node.inputs) == 1)
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


def relu_after_concatenation(graph: Graph) -> Graph:
    """cat(relu(a), relu(b)) = relu(cat(a, b)): the branches' comparisons share their rounds."""
    for join in graph.nodes:
        branches = [graph.by_name[name] for name in join.inputs]
        if (
            not isinstance(join.operation, Concatenation)
            or not all(isinstance(branch.operation, Rectifier) for branch in branches)
            or not all(graph.only_consumer(branch.name) is join for branch in branches)
        ):
            continue
        early = replace(join, name=branches[-1].name, inputs=tuple(branch.inputs[0] for branch in branches))
        late = Node(join.name, branches[-1].operation, (early.name,), join.shape)
        moved = {early.name: early, late.name: late}
        dropped = {branch.name for branch in branches[:-1]}
        return relu_after_concatenation(
            Graph(tuple(moved.get(node.name, node) for node in graph.nodes if node.name not in dropped))
        )
    return graph


def narrow_before_concatenation(graph: Graph) -> Graph:
    """Where only products read a concatenation, each sum of products is brought down before it is joined,
    and once for all concatenations; joined first, it would be opened again for every one of them."""
    wide = accumulating(graph)
    narrowed: set[str] = set()
    nodes: dict[str, Node] = {}
    for node in graph.nodes:
        users = graph.consumers[node.name]
        read = users and all(isinstance(user.operation, Weighted) for user in users)
        if isinstance(node.operation, Concatenation) and read:
            found = [name for name in node.inputs if name in wide]
            narrowed.update(found)
            inputs = tuple(_narrow(name) if name in found else name for name in node.inputs)
            nodes[node.name] = replace(node, inputs=inputs)
    result: list[Node] = []
    for node in graph.nodes:
        result.append(nodes.get(node.name, node))
        if node.name in narrowed:
            result.append(Node(_narrow(node.name), Narrow(), (node.name,), node.shape))
    return Graph(tuple(result))


def _narrow(name: str) -> str:
    return f"{name}.narrow"


def relu_after_max_pool(graph: Graph) -> Graph:
    """max(relu(a), relu(b)) = relu(max(a, b)), clamps alike: the pool leaves fewer values to compare."""
    while (found := _relu_before_pool(graph)) is not None:
        graph = _swapped(graph, *found)
    return graph


def _relu_before_pool(graph: Graph) -> tuple[Node, Node] | None:
    for node in graph.nodes:
        pool = graph.only_consumer(node.name)
        rectifies = isinstance(node.operation, (Rectifier, Clamp))
        if rectifies and pool is not None and isinstance(pool.operation, MaxPool):
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
