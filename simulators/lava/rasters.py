"""A window of stock processes: input in, and the spikes that the tap hands out, by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def play_window(injector: Any, tap: Any, condition: Any, config: Any, drive: np.ndarray) -> np.ndarray:
    """Rasters [T, size] of the tap, booleans, for what is injected at each Lava step of a window, [T + L, inputs]."""
    # The run is started first: the injector's buffer is finite, and a long window would fill it.
    injector.run(condition=condition, run_cfg=config)
    for row in drive:
        injector.send(row)
    rasters: np.ndarray = tap.receive().astype(bool)
    injector.wait()
    return rasters


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
