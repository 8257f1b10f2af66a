"""Exporters by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import random_policy

from exporters.registry import exporter, exporter_names
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.policy_file import load_policy


def test_nir_writes_a_policy_file(tmp_path: Path) -> None:
    assert "nir" in exporter_names()
    exporter("nir")(random_policy(), tmp_path / "p.nir", False)
    assert load_policy(tmp_path / "p.nir").env_id == "InvertedPendulum-v5"


def test_an_unknown_format_lists_what_there_is() -> None:
    with pytest.raises(SpikerlError, match="unknown export format 'nri'; there is: .*nir") as caught:
        exporter("nri")
    assert caught.value.hint == "did you mean 'nir'?"
