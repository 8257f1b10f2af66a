"""The policy file: the same policy to the bit, and a clear refusal of anything else."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import naive_core, quantized_policy, random_layers, random_policy, random_spikes

from exporters.quantize import quantize
from simulators.torch_backend import TorchBackend
from spikerl_deploy import nir_file, policy_file
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.policy import SCALAR_MAX, SCALAR_MIN, Policy, SpikingLayer
from spikerl_deploy.policy_file import load_policy, policy_from_graph, policy_to_graph, save_policy


def assert_identical(a: Any, b: Any) -> None:
    """Equality to the bit, through dataclasses and tuples."""
    assert type(a) is type(b)
    if is_dataclass(a):
        for item in fields(a):
            assert_identical(getattr(a, item.name), getattr(b, item.name))
    elif isinstance(a, tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_identical(x, y)
    elif isinstance(a, np.ndarray):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    else:
        assert a == b


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    obs_dim=st.integers(1, 5),
    act_dim=st.integers(1, 3),
    hidden=st.lists(st.integers(1, 20), min_size=1, max_size=3).map(tuple),
    time_steps=st.integers(1, 9),
    coding=st.sampled_from(["regular", "poisson"]),
    bits=st.one_of(st.none(), st.integers(2, 8)),
)
def test_a_policy_comes_back_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    obs_dim: int,
    act_dim: int,
    hidden: tuple[int, ...],
    time_steps: int,
    coding: str,
    bits: int | None,
) -> None:
    policy = random_policy(seed, obs_dim, act_dim, 5, hidden, time_steps, "Some-v0", coding)
    if bits is not None:
        policy, _ = quantize(policy, bits)
    path = tmp_path_factory.mktemp("policy") / "policy.nir"
    save_policy(policy, path)
    assert_identical(load_policy(path), policy)


def test_the_same_policy_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.nir", "b.nir"):
        save_policy(quantized_policy(), tmp_path / name)
    assert (tmp_path / "a.nir").read_bytes() == (tmp_path / "b.nir").read_bytes()


def test_any_nir_reader_opens_it_as_a_chain_of_affine_and_cubalif(tmp_path: Path) -> None:
    save_policy(quantized_policy(), tmp_path / "p.nir")
    graph = nir.read(tmp_path / "p.nir")
    kinds = [type(node).__name__ for node in graph.nodes.values()]
    assert sorted(kinds) == sorted(["Input", *["Affine", "CubaLIF"] * 3, "Output"])
    assert graph.metadata["dt"] == 1e-4


def test_float_weights_of_the_nodes_are_the_integers_times_their_scale() -> None:
    policy = quantized_policy()
    graph = policy_to_graph(policy)
    for index, layer in enumerate(policy.integers or (), start=1):
        np.testing.assert_array_equal(graph.nodes[f"fc{index}"].weight, (layer.weight * layer.scale).astype(np.float32))


def strip_metadata(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["node"]["metadata"]


def test_without_metadata_it_is_a_core_that_spikes_the_same(tmp_path: Path) -> None:
    policy, path = random_policy(), tmp_path / "core.nir"
    save_policy(policy, path)
    strip_metadata(path)
    core = load_policy(path)
    assert (core.encoder, core.decoder, core.integers, core.env_id) == (None, None, None, None)
    spikes = random_spikes(0, (1, 5, 40))
    with TorchBackend("cpu").open(core) as session:
        rasters = session.infer(spikes, rasters=True).rasters
    assert rasters is not None
    for ours, naive in zip(rasters, naive_core(policy.layers, spikes[0]), strict=True):
        np.testing.assert_array_equal(ours[0], naive)


def test_input_scaling_of_a_foreign_core_is_folded_into_its_weights() -> None:
    policy = random_policy()
    graph = policy_to_graph(replace(policy, encoder=None, decoder=None, normalization=None))
    graph.metadata = {}
    graph.nodes["lif1"].w_in = graph.nodes["lif1"].w_in * np.float32(0.5)
    core = policy_from_graph(graph, "graph")
    np.testing.assert_allclose(core.layers[0].weight, policy.layers[0].weight / 2, rtol=1e-6)
    np.testing.assert_array_equal(core.layers[1].weight, policy.layers[1].weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: setattr(g.nodes["lif2"], "v_reset", g.nodes["lif2"].v_reset + 1), "'lif2' has v_reset"),
        (lambda g: setattr(g.nodes["lif2"], "v_leak", g.nodes["lif2"].v_leak + 1), "'lif2' has v_leak"),
        (lambda g: g.nodes["lif1"].tau_mem.__setitem__(0, 1.0), "'lif1' has tau_mem that is not one"),
        (lambda g: setattr(g.nodes["lif1"], "tau_syn", g.nodes["lif1"].tau_syn * 0.01), "time constant below dt"),
        (lambda g: g.nodes.__setitem__("fc2", nir.Scale(np.ones(24))), "'fc2' is a Scale"),
        (lambda g: g.nodes.__setitem__("lif2", nir.Threshold(np.ones(20))), "'lif2' is a Threshold"),
        (lambda g: g.edges.append(("lif2", "fc2")), "'lif2' branches"),
        (lambda g: g.edges.remove(("lif1", "fc2")), "not on the chain"),
    ],
)
def test_a_graph_that_a_core_cannot_honour_is_refused_by_node(change: Any, message: str) -> None:
    graph = policy_to_graph(random_policy())
    graph.metadata = {}
    change(graph)
    with pytest.raises(SpikerlError, match=message):
        policy_from_graph(graph, "graph")


def test_missing_truncated_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpikerlError, match=r"no policy file at '.*none\.nir'"):
        load_policy(tmp_path / "none.nir")
    save_policy(random_policy(), tmp_path / "whole.nir")
    whole = (tmp_path / "whole.nir").read_bytes()
    for kept in (0, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "part.nir").write_bytes(whole[:kept])
        with pytest.raises(SpikerlError, match="not a NIR file that can be read"):
            load_policy(tmp_path / "part.nir")
    (tmp_path / "text.nir").write_text("hello")
    with h5py.File(tmp_path / "other.nir", "w") as file:
        file["x"] = 1
    for name in ("text.nir", "other.nir"):
        with pytest.raises(SpikerlError, match="not a NIR file that can be read"):
            load_policy(tmp_path / name)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("metadata/time_steps", 7, "content hash differs"),
        ("metadata/env_id", "Ant-v5", "content hash differs"),
        ("metadata/spikerl.version", 99, "policy version 99"),
        ("metadata/spikerl.version", "abc", "broken metadata"),
        ("metadata/spikerl.format", [1, 2], "broken metadata|is not 'spikerl-policy'"),
        ("metadata/encoder.coding", "latency", "coding 'latency'"),
        ("metadata/provenance", "{", "broken metadata"),
        ("metadata/layer.0.v_threshold", 0.6, "its NIR node says 0.4"),
    ],
)
def test_a_changed_file_is_noticed(tmp_path: Path, key: str, value: Any, message: str) -> None:
    path = tmp_path / "p.nir"
    save_policy(quantized_policy(), path)
    with h5py.File(path, "r+") as file:
        del file["node"][key]
        file["node"][key] = value
    with pytest.raises(SpikerlError, match=message):
        load_policy(path)


@pytest.mark.parametrize("v_threshold", [1e-3, 0.3, 50.0, 100.0, 12345.6, SCALAR_MIN, SCALAR_MAX])
def test_any_threshold_comes_back(tmp_path: Path, v_threshold: float) -> None:
    policy = replace(random_policy(), layers=random_layers(np.random.default_rng(0), (40, 10), v_threshold=v_threshold))
    save_policy(policy, tmp_path / "p.nir")
    assert_identical(load_policy(tmp_path / "p.nir"), policy)


@pytest.mark.parametrize(
    ("dt", "message"),
    [(0.0, "dt 0.0 s"), (float("nan"), "dt nan s"), (1e-60, "dt 1e-60 s"), ("abc", "broken metadata")],
)
def test_a_core_that_states_a_broken_time_step_is_refused(dt: Any, message: str) -> None:
    graph = policy_to_graph(random_policy())
    graph.metadata = {"dt": dt}
    with pytest.raises(SpikerlError, match=message):
        policy_from_graph(graph, "graph")


def test_a_core_keeps_the_time_step_that_it_states() -> None:
    graph = policy_to_graph(replace(random_policy(), dt=1e-3))
    graph.metadata = {"dt": 1e-3}
    core = policy_from_graph(graph, "graph")
    assert core.dt == 1e-3
    np.testing.assert_array_equal(core.layers[0].weight, random_policy().layers[0].weight)


def test_a_flipped_weight_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "p.nir"
    save_policy(quantized_policy(), path)
    for key in ("nodes/fc2/weight", "metadata/integer.1.weight", "metadata/trained.1.weight"):
        with h5py.File(path, "r+") as file:
            kept = file["node"][key][()]
            file["node"][key][0, 0] = kept[0, 0] + 2
        with pytest.raises(SpikerlError, match="content hash differs"):
            load_policy(path)
        with h5py.File(path, "r+") as file:
            file["node"][key][...] = kept
    load_policy(path)


def test_nothing_is_overwritten_or_left_half_written(tmp_path: Path) -> None:
    path = tmp_path / "p.nir"
    save_policy(random_policy(0), path)
    before = path.read_bytes()
    with pytest.raises(SpikerlError, match="not overwritten"):
        save_policy(random_policy(1), path)
    assert path.read_bytes() == before
    save_policy(random_policy(1), path, force=True)
    assert path.read_bytes() != before
    assert [p.name for p in tmp_path.iterdir()] == ["p.nir"]
    with pytest.raises(SpikerlError, match="is a directory"):
        save_policy(random_policy(), tmp_path)


@pytest.mark.parametrize("coding", ["regular", "poisson"])
def test_both_encoders_come_back_each_as_it_was(tmp_path: Path, coding: str) -> None:
    source = random_policy(coding=coding)
    policy, _ = quantize(source, 8, encoder_bits=3)
    save_policy(policy, tmp_path / "p.nir")
    loaded = load_policy(tmp_path / "p.nir")
    assert_identical(loaded, policy)
    assert_identical(loaded.as_trained(), source)
    assert loaded.encoder is not None
    assert loaded.trained_encoder is not None
    assert (loaded.encoder.mean != loaded.trained_encoder.mean).any()


def test_a_bias_of_sixteen_synapses_comes_back(tmp_path: Path) -> None:
    bias = np.array([2.0, -2.0, 0.3])
    policy, (report,) = quantize(Policy(layers=(SpikingLayer(np.full((3, 4), 0.01), bias),)), 8)
    save_policy(policy, tmp_path / "p.nir")
    assert report.bias_neurons == 16
    assert_identical(load_policy(tmp_path / "p.nir"), policy)


# Files that would fill the memory or read other files: refused by dataset before anything is unpacked

WEIGHT = "node/nodes/fc1/weight"
SECRET = np.full((24, 40), 7.0)


def instead(key: str, **dataset: Any) -> Any:
    def change(file: h5py.File) -> None:
        del file[key]
        file.create_dataset(key, **dataset)

    return change


def metadata(**dataset: Any) -> Any:
    return lambda file: file.create_dataset("node/metadata/x", **dataset)


def link_twice(file: h5py.File) -> None:
    file["node/metadata/x"] = file[WEIGHT]


def loop(file: h5py.File) -> None:
    file["node/nodes/fc1/loop"] = file["node"]


def soft_link(file: h5py.File) -> None:
    file["node/metadata/x"] = h5py.SoftLink("/version")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (instead(WEIGHT, shape=(40000, 40000), dtype="f4", chunks=(500, 500), compression="gzip"), "unpack to 16000"),
        (
            instead(WEIGHT, shape=(10**6, 10**6), dtype="f4", chunks=(500, 500), compression="gzip"),
            "unpack to 10000000",
        ),
        (instead(WEIGHT, shape=(10**9, 10**9), dtype="f4"), "unpack to 1000000000"),
        (instead(WEIGHT, shape=(24, 40), maxshape=(None, None), dtype="f4", chunks=(9999, 9999)), "unpack to 999"),
        (metadata(shape=(1,), dtype="S900000000"), "unpack to .* values of 900"),
        (metadata(shape=(20000,), dtype=h5py.string_dtype()), "hold 200.. strings, at most 16384"),
        (metadata(shape=(3,), dtype=h5py.vlen_dtype("f8")), "holds references or lists"),
        (metadata(shape=(3,), dtype=h5py.ref_dtype), "holds references or lists"),
        (link_twice, "is the same object as another"),
        (loop, "is the same object as another"),
        (soft_link, "is a link to elsewhere"),
    ],
)
def test_a_file_that_would_grow_is_refused_by_dataset_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, message: str
) -> None:
    path = tmp_path / "p.nir"
    save_policy(random_policy(), path)
    with h5py.File(path, "r+") as file:
        change(file)
    monkeypatch.delattr(nir, "read")
    with pytest.raises(SpikerlError, match=rf"p\.nir': '/node/.*(weight|x|loop)' .*{message}") as caught:
        load_policy(path)
    assert caught.value.hint


def test_text_that_shares_its_bytes_is_refused(tmp_path: Path) -> None:
    path, count = tmp_path / "p.nir", 100
    save_policy(random_policy(), path)
    with h5py.File(path, "r+") as file:
        text = file.create_dataset("node/metadata/x", (count,), dtype=h5py.string_dtype())
        text[...] = ["a" * 100_000] + ["b"] * (count - 1)
        place = text.id.get_offset()
    content = bytearray(path.read_bytes())
    content[place : place + 16 * count] = content[place : place + 16] * count  # each element now is the first
    path.write_bytes(content)
    assert sum(map(len, nir.read(path).metadata["x"])) == 10_000_000 > 10 * len(content)
    with pytest.raises(SpikerlError, match="'/node/metadata/x' holds more text than the file"):
        load_policy(path)


@pytest.mark.parametrize(("limit", "value"), [("VALUES_MAX", 40 * 24), ("BYTES_MAX", 40 * 24 * 4)])
def test_the_datasets_of_a_file_are_bounded_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    save_policy(random_policy(), tmp_path / "p.nir")
    monkeypatch.setattr(nir_file, limit, value)  # the first layer's weight alone would fit
    with pytest.raises(SpikerlError, match=f"at most .*{value} .*are read"):
        load_policy(tmp_path / "p.nir")


def test_an_untrained_core_of_zeros_may_compress_well(tmp_path: Path) -> None:
    weight = np.zeros((2500, 2500))
    save_policy(Policy((SpikingLayer(weight, np.zeros(2500)),)), tmp_path / "p.nir")
    assert weight.size * 4 > 200 * (tmp_path / "p.nir").stat().st_size
    assert load_policy(tmp_path / "p.nir").sizes == (2500, 2500)


def link_outside(file: h5py.File, folder: Path) -> None:
    file[WEIGHT] = h5py.ExternalLink("secret.h5", "/data")


def virtual(file: h5py.File, folder: Path) -> None:
    layout = h5py.VirtualLayout(SECRET.shape, "f8")
    layout[...] = h5py.VirtualSource(folder / "secret.h5", "data", SECRET.shape)
    file.create_virtual_dataset(WEIGHT, layout)


def external(file: h5py.File, folder: Path) -> None:
    file.create_dataset(WEIGHT, SECRET.shape, "f8", external=[(str(folder / "secret.raw"), 0, SECRET.nbytes)])


@pytest.mark.parametrize("refer", [link_outside, virtual, external])
def test_data_in_another_file_is_not_read(tmp_path: Path, refer: Any) -> None:
    path = tmp_path / "p.nir"
    save_policy(random_policy(), path)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["data"] = SECRET
    (tmp_path / "secret.raw").write_bytes(SECRET.tobytes())
    with h5py.File(path, "r+") as file:
        del file[WEIGHT]
        refer(file, tmp_path)
    np.testing.assert_array_equal(nir.read(path).nodes["fc1"].weight, SECRET)  # a plain reader follows it
    with pytest.raises(
        SpikerlError, match="'/node/nodes/fc1/weight' (is a link to elsewhere|keeps its data in another)"
    ):
        load_policy(path)


def test_the_whole_graph_may_not_lie_in_another_file(tmp_path: Path) -> None:
    save_policy(random_policy(), tmp_path / "whole.nir")
    with h5py.File(tmp_path / "p.nir", "w") as file:
        file["node"] = h5py.ExternalLink("whole.nir", "/node")
    assert nir.read(tmp_path / "p.nir").nodes
    with pytest.raises(SpikerlError, match="'/node' is a link to elsewhere"):
        load_policy(tmp_path / "p.nir")


def test_memory_that_runs_out_is_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(path: Path) -> None:
        raise MemoryError("Unable to allocate 6 GiB")

    save_policy(random_policy(), tmp_path / "p.nir")
    monkeypatch.setattr(nir, "read", exhausted)
    with pytest.raises(SpikerlError, match=r"p\.nir' is not a NIR file that can be read: Unable to allocate 6 GiB"):
        load_policy(tmp_path / "p.nir")


def test_a_provenance_is_read_as_strict_json_and_what_is_not_finite_is_unknown(tmp_path: Path) -> None:
    made = {"progress": {"eval_return": float("nan"), "best": [float("inf"), -float("inf"), 1.5]}, "step": 7}
    strict = {"progress": {"eval_return": None, "best": [None, None, 1.5]}, "step": 7}
    policy = replace(quantized_policy(), provenance=made)
    save_policy(policy, tmp_path / "p.nir")
    with h5py.File(tmp_path / "p.nir") as file:
        text = file["node"]["metadata/provenance"][()].decode()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name)) == strict
    assert load_policy(tmp_path / "p.nir").provenance == strict
    graph = policy_to_graph(policy)
    graph.metadata["provenance"] = '{"a": NaN, "b": -Infinity, "c": 1e999, "d": 2.5}'  # of an older version
    graph.metadata["content_sha256"] = policy_file._content_hash(policy.layers, graph.metadata)
    assert policy_from_graph(graph, "p").provenance == {"a": None, "b": None, "c": None, "d": 2.5}
