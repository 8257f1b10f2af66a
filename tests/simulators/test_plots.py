"""The picture of a report: drawn from what was recorded, and legible down to the pixel counts."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from support import quantized_policy

from simulators.compare import report_document
from simulators.plots import RASTER_STEPS, draw_summary
from simulators.registry import make_backend
from simulators.rollout import rollout
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.policy_file import save_policy


def test_a_summary_is_drawn_and_not_overwritten(tmp_path: Path) -> None:
    policy, runs = quantized_policy(), []
    save_policy(policy, tmp_path / "p.nir")
    for name in ("fixed", "torch"):
        backend = make_backend(name, device="cpu")
        with backend.open(policy, 2) as session:
            runs.append((backend, rollout(session, "InvertedPendulum-v5", range(3), record=RASTER_STEPS)))
    recorded = runs[0][1]
    assert recorded.rasters is not None
    assert [raster.shape[2:] for raster in recorded.rasters] == [(5, 24), (5, 20), (5, 10)]
    document = report_document(policy, tmp_path / "p.nir", "InvertedPendulum-v5", 0.04, runs)
    draw_summary(document, recorded, tmp_path / "summary.png", force=False)
    pixels = matplotlib.image.imread(tmp_path / "summary.png")[..., :3]
    assert pixels.shape[:2] == (780, 1430)
    blue = (np.abs(pixels - np.array([0x0B, 0x6E, 0x99]) / 255) < 0.02).all(axis=-1)
    assert blue[:, 650:].sum() > 500  # spikes
    assert blue[:, :600].sum() > 100  # returns and operations
    with pytest.raises(SpikerlError, match="not overwritten"):
        draw_summary(document, recorded, tmp_path / "summary.png", force=False)
