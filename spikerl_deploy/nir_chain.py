"""The order of a NIR graph's nodes from its Input to its Output, if it is a chain; subgraphs are unrolled."""

from __future__ import annotations

import nir

from spikerl_deploy.errors import SpikerlError


def chain_nodes(graph: nir.NIRGraph, prefix: str = "") -> list[tuple[str, nir.NIRNode]]:
    """Nodes between Input and Output with their names, in their order.

    A node that is itself a graph stands for its own chain; its nodes are named `subgraph.node`.

    Raises:
        SpikerlError: a branch, a loop, a node off the chain, or not one Input and one Output; names the node.
    """
    nodes: list[tuple[str, nir.NIRNode]] = []
    for name in _ordered_names(graph, prefix):
        node = graph.nodes[name]
        if isinstance(node, nir.NIRGraph):
            nodes += chain_nodes(node, f"{prefix}{name}.")
        elif not isinstance(node, nir.Input | nir.Output):
            nodes.append((prefix + name, node))
    return nodes


def _ordered_names(graph: nir.NIRGraph, prefix: str) -> list[str]:
    following: dict[str, str] = {}
    for source, target in dict.fromkeys(map(tuple, graph.edges)):
        if source in following:
            raise SpikerlError(
                f"NIR node '{prefix}{source}' branches, to '{following[source]}' and '{target}'; "
                "a core is a chain, without recurrence"
            )
        following[source] = target
    inputs = [name for name, node in graph.nodes.items() if isinstance(node, nir.Input)]
    if len(inputs) != 1:
        where = f"node '{prefix[:-1]}'" if prefix else "graph"
        raise SpikerlError(f"NIR {where} has {len(inputs)} Input nodes, one is needed")
    names = {inputs[0]: None}  # ordered
    last = inputs[0]
    while last in following:
        last = following[last]
        if last in names:
            raise SpikerlError(f"NIR node '{prefix}{last}' closes a loop; a core is a chain")
        names[last] = None
    left = set(graph.nodes) - set(names)
    if left:
        raise SpikerlError(f"NIR node '{prefix}{sorted(left)[0]}' is not on the chain from '{prefix}{inputs[0]}'")
    if not isinstance(graph.nodes.get(last), nir.Output):
        raise SpikerlError(f"NIR node '{prefix}{last}' ends the chain, an Output was expected")
    return list(names)
