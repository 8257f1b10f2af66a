"""The spikes that a network's tap hands out, by layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def split_layers(rasters: np.ndarray, sizes: Sequence[int], outputs: Sequence[int], batch: int) -> list[np.ndarray]:
    """Rasters [B, T, n] of each layer out of [T, sum(sizes)].

    Args:
        sizes: values of each layer in a row: B * n, and then what else it has (neurons that carry a bias).
        outputs: n of each layer.
    """
    layers, start = [], 0
    for size, n_out in zip(sizes, outputs, strict=True):
        part = rasters[:, start : start + batch * n_out]
        layers.append(part.reshape(len(rasters), batch, n_out).swapaxes(0, 1))
        start += size
    return layers
