"""A NIR graph without subgraphs: their nodes get names `subgraph.node`, their own Inputs and Outputs are dissolved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import nir

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.nir_shapes import SUPPORTED, refused

Nodes = dict[str, nir.NIRNode]
Edges = list[tuple[str, str]]
DEPTH_MAX = 32  # graphs within graphs
EDGES_MAX = 1 << 18  # of a graph and its subgraphs
NODES_MAX = 1 << 16


def unroll(graph: nir.NIRGraph) -> tuple[Nodes, Edges, str, str]:
    """Nodes and edges of a graph and its subgraphs under full names; names of the graph's own Input and Output.

    An edge to a subgraph leads to its Input, one from it comes from its Output.

    Raises:
        SpikerlError: not one Input and one Output in a graph, an edge from or to nowhere, a node of a kind that cannot
            be run, names that collide, or more than can be handled; names the node.
    """
    nodes: Nodes = {}
    edges: Edges = []
    first, last = _collect(graph, "", 0, nodes, edges)
    for source, target in edges:
        if target == first:
            raise refused(first, f"is the graph's Input, an edge leads into it from '{source}'")
        if source == last:
            raise refused(last, f"is the graph's Output, an edge leads out of it to '{target}'")
    return nodes, edges, first, last


def _collect(graph: nir.NIRGraph, prefix: str, depth: int, nodes: Nodes, edges: Edges) -> tuple[str, str]:
    """Collect nodes and edges of a graph and its subgraphs under their full names; names of its Input and Output."""
    where = f"node '{prefix[:-1]}'" if prefix else "graph"
    if depth > DEPTH_MAX:
        raise SpikerlError(f"NIR node '{prefix[:40]}...' lies more than {DEPTH_MAX} graphs deep")
    ends = {}
    for kind in (nir.Input, nir.Output):
        found = [name for name, node in graph.nodes.items() if isinstance(node, kind)]
        if len(found) != 1:
            listed = f" ({', '.join(map(repr, found[:4]))})" if found else ""
            raise SpikerlError(f"NIR {where} has {len(found)} {kind.__name__} nodes{listed}, exactly one is needed")
        ends[kind] = prefix + found[0]
    entry, leave = {}, {}  # of each node: what takes its input and what gives its output
    for name, node in graph.nodes.items():
        full = prefix + name
        if not name.isprintable() or not name:
            raise SpikerlError(f"NIR {where} has a node with the name {name[:40]!r}, which cannot be printed")
        entry[name] = leave[name] = full
        if isinstance(node, nir.NIRGraph):
            entry[name], leave[name] = _collect(node, f"{full}.", depth + 1, nodes, edges)
            continue
        if full in nodes:
            raise refused(full, "is there twice: within a subgraph and outside of it")
        if type(node) not in SUPPORTED:
            kinds = ", ".join(kind.__name__ for kind in SUPPORTED)
            raise refused(full, f"is a {type(node).__name__}, which cannot be run", f"there is: {kinds}, subgraphs")
        nodes[full] = node
    pairs = [(str(source), str(target)) for source, target in graph.edges]
    for (source, target), count in Counter(pairs).items():
        missing = source if source not in entry else target
        if missing not in entry:
            raise SpikerlError(f"NIR {where} has an edge '{source}' -> '{target}', there is no node '{missing}'")
        if count > 1:
            raise SpikerlError(f"NIR {where} has {count} edges '{source}' -> '{target}', which NIR does not allow")
        edges.append((leave[source], entry[target]))
    if len(nodes) > NODES_MAX or len(edges) > EDGES_MAX:
        raise SpikerlError(f"NIR {where} takes the graph beyond {NODES_MAX} nodes or {EDGES_MAX} edges")
    return ends[nir.Input], ends[nir.Output]


def dissolve(ports: Iterable[str], nodes: Iterable[str], edges: Iterable[tuple[str, str]]) -> dict[str, Counter[str]]:
    """Sources of each node and how often each is summed, once the subgraphs' own Inputs and Outputs are gone."""
    sources: dict[str, Counter[str]] = {name: Counter() for name in nodes}
    targets: dict[str, Counter[str]] = {name: Counter() for name in sources}
    for source, target in edges:
        sources[target][source] += 1  # a subgraph's loop to itself may be drawn within and around it
        targets[source][target] += 1
    total = sum(counts.total() for counts in sources.values())
    for port in ports:
        taken, given = sources.pop(port), targets.pop(port)
        if port in taken:
            raise refused(port, "lies in a loop without a neuron or a Delay")
        total += taken.total() * given.total() - taken.total() - given.total()
        if total > EDGES_MAX:
            raise refused(
                port, f"takes the graph beyond {EDGES_MAX} edges: {taken.total()} lead in, {given.total()} out"
            )
        for source in taken:
            del targets[source][port]
        for target in given:
            del sources[target][port]
        for source, taken_count in taken.items():
            for target, given_count in given.items():
                count = sources[target][source] + taken_count * given_count
                sources[target][source] = targets[source][target] = count
    return sources
