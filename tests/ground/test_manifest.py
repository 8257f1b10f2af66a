"""What a manifest says of the machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from spikerl_deploy import manifest


def test_the_processor_is_named_as_the_system_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(manifest, "CPUINFO", cpuinfo)
    cpuinfo.write_text("model\t\t: 207\nmodel name\t: Some CPU @ 2: GHz\nmodel name\t: another\n")
    assert manifest.processor() == "Some CPU @ 2: GHz"
    cpuinfo.write_text("model\t\t: 207\n")
    without = manifest.processor()
    cpuinfo.unlink()
    assert manifest.processor() == without
    assert re.fullmatch(r"\w.*", without) and without != "207"
