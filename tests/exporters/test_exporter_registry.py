"""Exporters by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import random_policy

from exporters.registry import default_file, exporter, exporter_names, parse_options
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


def an_exporter(policy: object, path: Path, force: bool = False, *, opset: int = 17, plain: bool = False) -> None:
    """What a third party's might look like."""


def test_options_are_parsed_by_their_annotations() -> None:
    assert parse_options("x", an_exporter, ["opset=18", " plain = true"]) == {"opset": 18, "plain": True}
    assert parse_options("x", an_exporter, []) == {}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("opst=18", "unknown option of export format 'x' 'opst'; there is: opset, plain"),
        ("opset=many", "option 'opset' = 'many' of export format 'x' is no int"),
        ("plain=perhaps", "option 'plain' = 'perhaps' of export format 'x' is no bool"),
        ("path=elsewhere", "unknown option of export format 'x' 'path'"),
        ("opset", "--set 'opset' is not key=value"),
    ],
)
def test_options_that_a_format_has_not_are_refused(given: str, message: str) -> None:
    with pytest.raises(SpikerlError, match=message):
        parse_options("x", an_exporter, [given])


def test_a_format_without_options_says_so() -> None:
    with pytest.raises(SpikerlError, match="export format 'nir' has no options, --set gave 'opset'"):
        parse_options("nir", exporter("nir"), ["opset=17"])


def test_the_default_file_has_the_suffix_of_its_format() -> None:
    assert [default_file(name) for name in ("nir", "netx", "c-header")] == ["policy.nir", "policy.net", "policy.h"]
