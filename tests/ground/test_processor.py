"""What is read from the system's description of the processor."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from spikerl_deploy import processor


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(processor, "CPUINFO", path)
    return path


def test_the_processor_is_named_as_the_system_names_it(cpuinfo: Path) -> None:
    cpuinfo.write_text("model\t\t: 207\nmodel name\t: Some CPU @ 2: GHz\nmodel name\t: another\n")
    assert processor.processor() == "Some CPU @ 2: GHz"
    cpuinfo.write_text("model\t\t: 207\n")
    without = processor.processor()
    cpuinfo.unlink()
    assert processor.processor() == without
    assert re.fullmatch(r"\w.*", without) and without != "207"


@pytest.mark.parametrize(
    ("line", "has"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 avx512_vnni", True),
        ("flags\t\t: fpu amx_bf16 amx_tile", True),
        ("Features\t: fp asimd i8mm bf16", True),
        ("flags\t\t: fpu avx512f avx512_vnni", False),
        ("Features\t: fp asimd ebf16x", False),
        ("bugs\t\t: avx512_bf16", None),  # no flags, so nothing is told
        ("model name\t: bf16", None),
    ],
)
def test_bf16_is_in_hardware_where_a_flag_of_the_processor_says_so(cpuinfo: Path, line: str, has: bool | None) -> None:
    cpuinfo.write_text(f"processor\t: 0\n{line}\n\nprocessor\t: 1\n{line}\n")
    assert processor.has_bf16() is has


def test_without_a_description_it_is_not_known_whether_there_is_bf16(cpuinfo: Path) -> None:
    assert not cpuinfo.exists()
    assert processor.has_bf16() is None
