"""Writes a policy as one ONNX graph, from raw observation to action in the environment's units; needs no torch.

Time is unrolled: no layer feeds back, so each is one matrix product over all time steps, then its neurons step by step.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from spikerl_deploy import __version__
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.files import atomic_path
from spikerl_deploy.integer_core import FLOAT32_INTEGERS
from spikerl_deploy.loihi import (
    DECAY_UNITY,
    STATE_LIMIT,
    STATE_SHIFT,
    IntegerLayer,
    is_lossless,
    state_bound,
)
from spikerl_deploy.policy import Policy, PopulationDecoder, PopulationEncoder, SpikingLayer

# From 13 on, axes are inputs; up to 26, the newest that onnxruntime 1.31 takes, the operators used here are the same.
OPSET_MIN, OPSET_MAX = 13, min(26, onnx.defs.onnx_opset_version())
FORMAT, VERSION = "spikerl-onnx", 1


def export_onnx(policy: Policy, path: Path, force: bool = False, *, opset: int = 17) -> None:
    """Write the policy as ONNX.

    Args:
        opset: version of ONNX's operators, OPSET_MIN to OPSET_MAX.

    Raises:
        SpikerlError: as `policy_to_model`; or the file exists and `force` is false.
    """
    model = policy_to_model(policy, opset)
    with atomic_path(path, force) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))


def policy_to_model(policy: Policy, opset: int = 17) -> onnx.ModelProto:
    """The policy as a checked ONNX model; batch is free.

    Inputs: `observation` float32 [batch, obs_dim] and, under poisson coding, `uniform` float32 [batch, T, n_in]; a
    core without an encoder has `spikes` float32 [batch, T, n_in] instead. Outputs: `action` float32 [batch, act_dim],
    or `spikes_out` float32 [batch, T, n_out] without a decoder; and `output_spike_counts` float32 [batch, n_out].

    A layer of a quantized policy is float32 where its integers provably compute the same real numbers
    (`loihi.is_lossless`), and the chip's integer arithmetic, bit by bit, where they do not.

    Raises:
        SpikerlError: the opset is out of range, or the sums of an integer layer exceed float32's integers.
    """
    if not OPSET_MIN <= opset <= OPSET_MAX:
        raise SpikerlError(
            f"opset {opset} is outside [{OPSET_MIN}, {OPSET_MAX}]", "spikerl export --to onnx --set opset=17"
        )
    graph, steps = _Graph(), policy.time_steps
    raster = _input_raster(graph, policy)
    arithmetic = []
    for index, layer in enumerate(policy.layers):
        integers = policy.integers[index] if policy.integers is not None else None
        if integers is None or is_lossless(integers, steps):
            raster = _float_layer(graph, layer, raster, steps)
            arithmetic.append("float32")
        else:
            _check_sums(index, integers)
            raster = _integer_layer(graph, integers, raster, steps)
            arithmetic.append("int64")
    axis = graph.constant(np.array([0], dtype=np.int64))
    counts = graph.node("ReduceSum", raster, axis, keepdims=0, output="output_spike_counts")
    if policy.decoder is not None:
        _decode(graph, policy.decoder, counts, steps)
        outputs = [_port("action", policy.decoder.act_dim)]
    else:
        graph.node("Transpose", raster, perm=[1, 0, 2], output="spikes_out")
        outputs = [_port("spikes_out", steps, policy.n_out)]
    outputs.append(_port("output_spike_counts", policy.n_out))
    proto = helper.make_graph(graph.nodes, "policy", _inputs(policy), outputs, graph.used_constants())
    identifier = helper.make_opsetid("", opset)
    model = helper.make_model(
        proto,
        opset_imports=[identifier],
        ir_version=helper.find_min_ir_version_for([identifier]),
        producer_name="spikerl",
        producer_version=__version__,
    )
    helper.set_model_props(model, _metadata(policy, opset, arithmetic))
    onnx.checker.check_model(model, full_check=True)
    return model


class _Graph:
    """Nodes and constants in the order in which they are made."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, value: NDArray[Any] | np.generic) -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def used_constants(self) -> list[onnx.TensorProto]:
        """Constants that a node reads; with T = 1 no decay does."""
        names = {name for node in self.nodes for name in node.input}
        return [constant for constant in self.initializers if constant.name in names]

    def node(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Append a node with one output; returns its name."""
        name = output if output is not None else f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=f"node_{len(self.nodes)}", **attributes))
        return name

    def split(self, value: str, steps: int) -> list[str]:
        """The time steps of [T, B, n], each [1, B, n]."""
        names = [f"split_{len(self.nodes)}_{t}" for t in range(steps)]
        sizes = self.constant(np.ones(steps, dtype=np.int64))
        self.nodes.append(helper.make_node("Split", [value, sizes], names, name=f"node_{len(self.nodes)}", axis=0))
        return names

    def stack(self, fired: list[str]) -> str:
        """Boolean time steps [1, B, n] as a float32 raster [T, B, n]."""
        return self.node("Cast", self.node("Concat", *fired, axis=0), to=TensorProto.FLOAT)


def _port(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])


def _inputs(policy: Policy) -> list[onnx.ValueInfoProto]:
    if policy.encoder is None:
        return [_port("spikes", policy.time_steps, policy.n_in)]
    ports = [_port("observation", policy.encoder.obs_dim)]
    if policy.encoder.coding == "poisson":
        ports.append(_port("uniform", policy.time_steps, policy.n_in))
    return ports


def _input_raster(graph: _Graph, policy: Policy) -> str:
    """Input spikes, float32 [T, B, n_in], as `codec.encode` computes them."""
    if policy.encoder is None:
        return graph.node("Transpose", "spikes", perm=[1, 0, 2])
    activation = _activation(graph, policy, policy.encoder)
    if policy.encoder.coding == "poisson":
        draws = graph.node("Transpose", "uniform", perm=[1, 0, 2])
        return graph.node("Cast", graph.node("Less", draws, activation), to=TensorProto.FLOAT)
    level = graph.constant(np.float32(policy.encoder.threshold))
    accumulator, fired = activation, list[str]()
    for t in range(policy.time_steps):
        if t:
            spent = graph.node("Mul", graph.node("Cast", fired[-1], to=TensorProto.FLOAT), level)
            accumulator = graph.node("Add", graph.node("Sub", accumulator, spent), activation)
        fired.append(graph.node("Greater", accumulator, level))
    return graph.stack(fired)


def _activation(graph: _Graph, policy: Policy, encoder: PopulationEncoder) -> str:
    """Activation of the receptive fields, float32 [1, B, n_in]."""
    state = "observation"
    if policy.normalization is not None:
        centred = graph.node("Sub", state, graph.constant(policy.normalization.mean))
        scores = graph.node("Div", centred, graph.constant(policy.normalization.std))
        bound = np.float32(policy.normalization.clip)
        state = graph.node("Clip", scores, graph.constant(-bound), graph.constant(bound))
    state = graph.node("Unsqueeze", state, graph.constant(np.array([0, 3], dtype=np.int64)))
    offset = graph.node("Sub", state, graph.constant(encoder.mean))
    distance = graph.node("Div", offset, graph.constant(encoder.std))
    exponent = graph.node("Mul", graph.node("Mul", graph.constant(np.float32(-0.5)), distance), distance)
    shape = graph.constant(np.array([0, 0, policy.n_in], dtype=np.int64))  # 0 keeps an axis
    return graph.node("Reshape", graph.node("Exp", exponent), shape)


def _float_layer(graph: _Graph, layer: SpikingLayer, raster: str, steps: int) -> str:
    """Spikes [T, B, n_out] of a layer in float32, as `policy.SpikingLayer` defines it."""
    drive = graph.node("MatMul", raster, graph.constant(layer.weight.T))
    drive = graph.node("Add", drive, graph.constant(layer.bias))
    keep_u, keep_v = (graph.constant(np.float32(d)) for d in (layer.current_decay, layer.voltage_decay))
    threshold, zero = graph.constant(np.float32(layer.v_threshold)), graph.constant(np.float32(0))
    u = v = ""
    fired = list[str]()
    for current in graph.split(drive, steps):
        if fired:
            u = graph.node("Add", graph.node("Mul", u, keep_u), current)
            rest = graph.node("Where", fired[-1], zero, v)
            v = graph.node("Add", graph.node("Mul", rest, keep_v), u)
        else:
            u = v = current
        fired.append(graph.node("Greater", v, threshold))
    return graph.stack(fired)


def _check_sums(index: int, layer: IntegerLayer) -> None:
    """Mantissas are even, so float32 adds them exactly, in any order, below twice 2^24."""
    largest = int(np.abs(layer.weight).sum(axis=1).max() + np.abs(layer.bias).max())
    if largest >= 2 * FLOAT32_INTEGERS:
        raise SpikerlError(
            f"layer {index}: its {layer.weight.shape[1]} mantissas add up to {largest}, float32 is exact to "
            f"{2 * FLOAT32_INTEGERS}",
            "export the float policy: spikerl export RUN --to onnx",
        )


def _integer_layer(graph: _Graph, layer: IntegerLayer, raster: str, steps: int) -> str:
    """Spikes [T, B, n_out] of a layer in the chip's integers, as `integer_lif.integrate_reference` computes them.

    ONNX divides integers towards zero, which is the decay's truncation.
    """
    zero, unity, keep_u, keep_v, threshold, lowest, highest = (
        graph.constant(np.int64(value))
        for value in (
            0, DECAY_UNITY, DECAY_UNITY - layer.du - 1, DECAY_UNITY - layer.dv, layer.vth << STATE_SHIFT,
            1 - STATE_LIMIT, STATE_LIMIT - 1,
        )
    )  # fmt: skip
    largest = max(state_bound(layer, steps))
    u = v = ""
    fired = list[str]()
    for current in graph.split(_activation_of_integers(graph, layer, raster), steps):
        u = graph.node("Add", graph.node("Div", graph.node("Mul", u, keep_u), unity), current) if fired else current
        if largest >= STATE_LIMIT:
            u = _wrapped(graph, u)
        if fired:
            rest = graph.node("Where", fired[-1], zero, v)
            v = graph.node("Add", graph.node("Div", graph.node("Mul", rest, keep_v), unity), u)
        else:
            v = u
        if largest >= STATE_LIMIT:
            v = graph.node("Clip", v, lowest, highest)
        fired.append(graph.node("Greater", v, threshold))
    return graph.stack(fired)


def _activation_of_integers(graph: _Graph, layer: IntegerLayer, raster: str) -> str:
    """Synaptic input in state units, int64 [T, B, n_out]; float32 adds so few mantissas exactly."""
    total = graph.node("MatMul", raster, graph.constant(layer.weight.T.astype(np.float32)))
    total = graph.node("Add", total, graph.constant(layer.bias.astype(np.float32)))
    if layer.weight_exp < 0:
        total = graph.node("Floor", graph.node("Mul", total, graph.constant(np.float32(2.0**layer.weight_exp))))
    unit = graph.constant(np.int64(1 << (STATE_SHIFT + max(layer.weight_exp, 0))))
    return graph.node("Mul", graph.node("Cast", total, to=TensorProto.INT64), unit)


def _wrapped(graph: _Graph, u: str) -> str:
    """The current as 32 bits and one turn of 24 bits leave it."""
    half, turn = graph.constant(np.int64(1 << 31)), graph.constant(np.int64(1 << 32))
    u = graph.node("Sub", graph.node("Mod", graph.node("Add", u, half), turn), half)
    limit, lowest = graph.constant(np.int64(STATE_LIMIT)), graph.constant(np.int64(1 - STATE_LIMIT))
    turn = graph.constant(np.int64(2 * STATE_LIMIT))
    u = graph.node("Where", graph.node("Greater", u, limit), graph.node("Sub", u, turn), u)
    return graph.node("Where", graph.node("Less", u, lowest), graph.node("Add", u, turn), u)


def _decode(graph: _Graph, decoder: PopulationDecoder, counts: str, steps: int) -> None:
    """Output `action`, as `codec.decode` computes it."""
    shape = graph.constant(np.array([0, *decoder.weight.shape], dtype=np.int64))
    rates = graph.node("Div", graph.node("Reshape", counts, shape), graph.constant(np.float32(steps)))
    weighted = graph.node("Mul", rates, graph.constant(decoder.weight))
    axis = graph.constant(np.array([2], dtype=np.int64))
    drive = graph.node("Add", graph.node("ReduceSum", weighted, axis, keepdims=0), graph.constant(decoder.bias))
    middle = (decoder.action_high + decoder.action_low) / 2
    half = (decoder.action_high - decoder.action_low) / 2
    scaled = graph.node("Mul", graph.constant(half), graph.node("Tanh", drive))
    graph.node("Add", graph.constant(middle), scaled, output="action")


def _metadata(policy: Policy, opset: int, arithmetic: list[str]) -> dict[str, str]:
    data = {
        "spikerl.format": FORMAT,
        "spikerl.version": str(VERSION),
        "time_steps": str(policy.time_steps),
        "opset": str(opset),
        "arithmetic": ",".join(arithmetic),
        "provenance": json.dumps(policy.provenance, sort_keys=True),
    }
    if policy.env_id is not None:
        data["env_id"] = policy.env_id
    if policy.bits is not None:
        data["bits"] = str(policy.bits)
    return data
