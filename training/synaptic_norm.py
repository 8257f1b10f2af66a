"""Batch normalisation of a spiking layer's synaptic input; an exported policy holds it folded into its weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.stacked import repeat

EPS = 1e-5  # added to the variance, in the square of the unit of v; torch's
# What n independent inputs of firing rate p give weights uniform in +-n^-0.5: p (1 - p) / 3, at p = 1/2. From torch's 1
# the actor that acts and the target actor would be nearly silent until the running statistics had come down.
INITIAL_VARIANCE = 1 / 12


class SynapticNorm(nn.Module):
    """gamma (c - mean) / sqrt(variance + EPS) + beta, for each neuron over all time steps and the batch.

    As tdBN (Zheng et al. 2021, https://arxiv.org/abs/2011.05280), gamma starts at the firing threshold; beta is the
    layer's bias. Statistics are float32, or float64 for float64 input.

    Attributes:
        gamma: parameter [S, n].
        running_mean, running_var: buffers [S, n], what the actor acts with; the variance is the unbiased one.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, seeds: int, size: int, v_threshold: float) -> None:
        super().__init__()
        self.gamma = repeat(torch.full((size,), v_threshold), seeds)
        self.register_buffer("running_mean", torch.zeros(seeds, size))
        self.register_buffer("running_var", torch.full((seeds, size), INITIAL_VARIANCE))

    def forward(self, current: Tensor, beta: Tensor, moments: list[Tensor] | None = None) -> Tensor:
        """Normalised synaptic input [S, N, n] of c = W s [S, N, n] and beta [S, n], N being time steps times batch.

        With the running statistics; or, if a list is given, with those of `current`, through which the gradient passes
        and whose mean and unbiased variance, [S, n] each, are put at the list's end.
        """
        if current.dtype != torch.float64:
            current = current.float()
        if moments is None:
            scale, shift = self.affine(beta)
            return torch.addcmul(shift.unsqueeze(1), current, scale.unsqueeze(1))
        mean = current.mean(dim=1)
        centred = current - mean.unsqueeze(1)
        variance = centred.square().mean(dim=1)
        count = current.shape[1]
        moments += [mean.detach(), variance.detach() * (count / (count - 1))]
        scale = self.gamma * torch.rsqrt(variance + EPS)
        return torch.addcmul(beta.unsqueeze(1), centred, scale.unsqueeze(1))

    def affine(self, beta: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and shift [S, n] that the running statistics make of gamma and beta: the input is scale W s + shift."""
        scale = self.gamma * torch.rsqrt(self.running_var + EPS)
        return scale, beta - self.running_mean * scale

    def statistics(self) -> list[Tensor]:
        """Running mean and variance where they lie, in the order of `moments`."""
        return [self.running_mean, self.running_var]
