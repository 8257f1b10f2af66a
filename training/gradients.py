"""Losses of all seeds and their gradients in a module's parameters, eagerly or as one graph for the compiler."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value

Gradients = tuple[Tensor, list[Tensor], list[Tensor]]
"""Losses [S], gradients of their sum, and the batch's moments [S, n] of synaptic input where it is normalised."""


def gradients_of(
    losses: Callable[[Callable[..., Tensor]], tuple[Tensor, list[Tensor]]], module: nn.Module
) -> Gradients:
    """Losses [S] as a function of a module, the gradients of their sum in its parameters, and what else it computes.

    The compiler traces `torch.func` into one graph of forward and backward; eagerly autograd is quicker.
    """
    if not torch.compiler.is_compiling():
        value, moments = losses(module)
        return value, list(torch.autograd.grad(value.sum(), list(module.parameters()))), moments

    def total(parameters: dict[str, Tensor]) -> tuple[Tensor, tuple[Tensor, list[Tensor]]]:
        value, moments = losses(lambda *arguments: functional_call(module, parameters, arguments))
        return value.sum(), (value, moments)

    detached = {name: p.detach() for name, p in module.named_parameters()}
    grads, (_, (value, moments)) = grad_and_value(total, has_aux=True)(detached)
    return value, list(grads.values()), moments
