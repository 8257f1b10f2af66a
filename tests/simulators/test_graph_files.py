"""Input files of `spikerl run`: what is looked at is what is read."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from simulators import graph_files
from simulators.graph_files import read_spikes
from spikerl_deploy.errors import SpikerlError


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def archive(path: Path, **members: np.ndarray) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, array in members.items():
            file.writestr(name.replace("_", "."), npy(array))
    return path


@pytest.mark.parametrize("other", ["spikes", "x_npy"])
def test_everything_in_the_file_counts_against_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    path = archive(tmp_path / "s.npz", **{other: np.zeros(100_000, dtype=np.uint8)}, spikes_npy=np.ones((2, 1), bool))
    assert read_spikes(path).shape == (2, 1)
    monkeypatch.setattr(graph_files, "INPUT_BYTES_MAX", 50_000)
    with pytest.raises(SpikerlError, match="unpacks to 100... bytes, at most 50000 are read"):
        read_spikes(path)


def test_a_member_without_npy_is_no_array(tmp_path: Path) -> None:
    with pytest.raises(SpikerlError, match="holds spikes, and no 'spikes' array"):
        read_spikes(archive(tmp_path / "s.npz", spikes=np.ones((2, 1), bool)))
