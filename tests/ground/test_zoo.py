"""Shipped policies: found by name, and never handed out unless their card describes them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import pytest
from card_support import SHIPPED, ship
from support import ROOT, quantized_policy

from simulators.fixed import FixedBackend
from simulators.rollout import rollout
from spikerl_deploy import zoo
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.model_card import KEPT
from spikerl_deploy.nir_file import write_graph
from spikerl_deploy.policy_file import load_policy

PLAYED = 0.05  # of the mean; between machines exp differs in its last digit, and an episode after it


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "policies"
    ship(place)
    monkeypatch.setattr(zoo, "folder", lambda: place)
    return place


def test_a_policy_is_found_by_its_name_in_capitals_or_not(folder: Path) -> None:
    ship(folder, "another-v5")
    assert zoo.names() == ["another-v5", "invertedpendulum-v5"]
    assert zoo.find("InvertedPendulum-V5") == "invertedpendulum-v5"
    assert zoo.path("INVERTEDPENDULUM-v5") == folder / "invertedpendulum-v5.nir"
    assert zoo.card("Another-v5")["name"] == "another-v5"


@pytest.mark.parametrize(
    "name", ["", ".", "invertedpendulum", "invertedpendulum-v5.nir", "../invertedpendulum-v5", "none"]
)
def test_what_is_no_name_is_not_found(folder: Path, name: str) -> None:
    assert zoo.find(name) is None
    with pytest.raises(SpikerlError, match="no policy named"):
        zoo.path(name)


def test_a_misspelt_name_gets_those_that_are_near(folder: Path) -> None:
    with pytest.raises(SpikerlError) as error:
        zoo.card("invertedpendlum-v5")
    assert error.value.hint == "did you mean invertedpendulum-v5? see: spikerl policies"


@pytest.mark.parametrize("change", ["a byte", "a byte more", "gone", "a link to another"])
def test_a_file_that_is_not_the_one_of_the_card_is_refused_before_it_is_read(folder: Path, change: str) -> None:
    file = folder / "invertedpendulum-v5.nir"
    content = bytearray(file.read_bytes())
    if change == "a byte":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif change == "a byte more":
        file.write_bytes(content + b"\0")
    elif change == "gone":
        file.unlink()
    else:
        ship(folder, "another-v5", seed=1)
        (folder / "another-v5.nir").replace(file)
    with pytest.raises(SpikerlError, match="'invertedpendulum-v5' is damaged") as error:
        zoo.path("invertedpendulum-v5")
    assert "--check" in str(error.value.hint)


def test_no_card_says_where_to_read(folder: Path) -> None:
    card = json.loads((folder / "invertedpendulum-v5.json").read_text())
    elsewhere = ("invertedpendulum-v5", "../elsewhere.nir"), ("invertedpendulum-v5", "other.nir")
    for name, file in (*elsewhere, ("another-v5", "another-v5.nir")):
        card |= {"name": name, "policy": card["policy"] | {"file": file}}
        (folder / "invertedpendulum-v5.json").write_text(json.dumps(card))
        with pytest.raises(SpikerlError):
            zoo.path("invertedpendulum-v5")


def test_the_card_of_another_policy_stands_for_none(folder: Path) -> None:
    ship(folder, "another-v5")
    (folder / "invertedpendulum-v5.json").write_text((folder / "another-v5.json").read_text())
    with pytest.raises(SpikerlError, match="the card of 'invertedpendulum-v5' is that of 'another-v5'"):
        zoo.path("invertedpendulum-v5")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": "spikerl.card/2"}', "null", "[" * 100_000])
def test_a_card_that_is_none_is_one_clear_error(folder: Path, text: str) -> None:
    (folder / "invertedpendulum-v5.json").write_text(text)
    with pytest.raises(SpikerlError, match=r"invertedpendulum-v5\.json") as error:
        zoo.path("invertedpendulum-v5")
    assert "\n" not in error.value.message


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("policy", "time_steps", 4, "has time steps 5, its card says 4"),
        ("policy", "bits", 7, "has bits 8, its card says 7"),
        ("policy", "sizes", [40, 24, 20, 11], r"has sizes \[40, 24, 20, 10\]"),
        ("policy", "content_sha256", "0" * 64, "has content_sha256 "),
        ("policy", "float_weights", False, "has float weights True, its card says False"),
        ("environment", "id", "Ant-v5", "has environment InvertedPendulum-v5, its card says Ant-v5"),
    ],
)
def test_a_card_that_says_what_its_file_does_not_is_found_out(
    folder: Path, part: str, key: str, value: Any, message: str
) -> None:
    card, file = zoo.card("invertedpendulum-v5"), folder / "invertedpendulum-v5.nir"
    assert zoo.untruth(card, file) is None
    card[part][key] = value
    assert zoo.mismatch(card, file) is None
    assert re.search(message, str(zoo.untruth(card, file)))


def test_the_identity_of_what_is_deployed_is_not_that_of_its_float_weights() -> None:
    policy = quantized_policy()
    assert policy.trained is not None
    bare = replace(policy, trained=None, trained_encoder=None, provenance={"made": "elsewhere"})
    assert zoo.content_sha256(bare) == zoo.content_sha256(policy) != zoo.content_sha256(quantized_policy(seed=1))


def test_a_file_without_a_card_is_a_stray(folder: Path) -> None:
    assert zoo.strays() == []
    (folder / "more.nir").write_bytes(b"")
    assert zoo.strays() == ["more.nir"]
    assert zoo.names() == ["invertedpendulum-v5"]


def test_an_empty_folder_and_none_are_an_empty_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (tmp_path, tmp_path / "none"):
        monkeypatch.setattr(zoo, "folder", lambda place=place: place)
        assert zoo.names() == []
        assert zoo.strays() == []


def test_finding_a_name_loads_no_arrays() -> None:
    code = (
        "import sys; from spikerl_deploy import zoo; zoo.names(); zoo.find('x'); "
        "print([m for m in ('numpy', 'h5py', 'jsonschema', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_repository_ships_what_lies_in_its_folder() -> None:
    assert zoo.folder() == SHIPPED
    assert zoo.strays() == []
    assert zoo.names(), "nothing is shipped"


@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.json")))
def test_a_shipped_policy_is_whole_small_and_what_its_card_says(name: str) -> None:
    card, file = zoo.card(name), zoo.path(name)
    assert file.stat().st_size < 1_000_000
    policy = load_policy(file)
    assert policy.bits == card["policy"]["bits"] == 8
    assert list(policy.sizes) == card["policy"]["sizes"]
    assert policy.env_id == card["environment"]["id"]
    assert name == policy.env_id.lower()
    assert (policy.trained is not None) == card["policy"]["float_weights"]
    assert zoo.untruth(card, file) is None
    assert str(ROOT) not in json.dumps([card, policy.provenance])
    seeds = card["evaluation"]["seeds"]
    assert len(seeds) >= 10 and seeds == list(range(len(seeds)))
    assert card["evaluation"]["comparisons"]["lava"]["retention"] >= KEPT
    assert card["evaluation"]["backends"]["fixed"]["returns"] == card["evaluation"]["backends"]["lava"]["returns"]


def test_a_policy_file_is_a_sixth_smaller_than_what_nir_writes(tmp_path: Path) -> None:
    (name, *_) = zoo.names()
    file = zoo.path(name)
    graph = nir.read(file)
    nir.write(tmp_path / "plain.nir", graph, compression_opts=1)
    write_graph(tmp_path / "ours.nir", graph)
    assert (tmp_path / "ours.nir").stat().st_size < 5 / 6 * (tmp_path / "plain.nir").stat().st_size


@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.json")))
def test_a_shipped_policy_returns_what_its_card_says(name: str) -> None:
    card, policy = zoo.card(name), load_policy(zoo.path(name))
    with FixedBackend().open(policy) as session:
        (found,) = rollout(session, policy.env_id, range(1)).returns
    entry = card["evaluation"]["backends"]["fixed"]
    spread = 3 * entry["std_return"] + PLAYED * abs(entry["mean_return"])  # an episode may fall that did not on another
    assert found == pytest.approx(entry["returns"][0], abs=spread)
