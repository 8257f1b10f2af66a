"""CUDA graphs of the update and of acting: at batches of a few hundred most of the work is launching kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

Losses = dict[str, Tensor]
Result = TypeVar("Result")
WARM_UP = 3  # calls on a side stream before capture, as torch asks for; they are real updates


class GraphedUpdate:
    """Runs `body(with_actor)` as one CUDA graph for each of its two forms, once each form has been called often enough.

    The body may read and write tensors that stay where they are, and draw from the device's default generator; it must
    not look at a result on the host.
    """

    def __init__(self, body: Callable[[bool], Losses]) -> None:
        self._body = body
        self._calls = {False: 0, True: 0}
        self._graphs: dict[bool, tuple[torch.cuda.CUDAGraph, Losses]] = {}

    def __call__(self, with_actor: bool) -> Losses:
        """One update; the losses are valid until the next."""
        if with_actor in self._graphs:
            graph, losses = self._graphs[with_actor]
            graph.replay()
            return losses
        self._calls[with_actor] += 1
        if self._calls[with_actor] <= WARM_UP:
            return _aside(lambda: self._body(with_actor))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            losses = self._body(with_actor)
        self._graphs[with_actor] = graph, losses
        graph.replay()  # capturing runs nothing
        return losses


class GraphedForward:
    """Runs a function of one tensor, always of one shape, as a CUDA graph; it may draw as the update may."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, value: Tensor) -> Tensor:
        """The function's value, valid until the next call, for a tensor on the host or the device."""
        if self._graph is None:
            self._input = value.cuda()
            for _ in range(WARM_UP):
                _aside(lambda: self._function(self._input))
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._output = self._function(self._input)
        self._input.copy_(value)
        self._graph.replay()
        return self._output


def _aside(body: Callable[[], Result]) -> Result:
    """Run on a side stream, as torch asks for before a capture."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        result = body()
    torch.cuda.current_stream().wait_stream(side)
    return result
