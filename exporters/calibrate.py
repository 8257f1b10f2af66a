"""Post-training quantization by recorded data, which keeps spikes and actions near the float policy's, not weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from exporters.grid import DECAY_BITS_MAX, Grid, layers_to_try, round_decays
from exporters.layer_report import LayerReport, StateWatch, observed_states, report_layer
from exporters.quantize import assemble, float_source, quantized_encoder
from exporters.reconstruction import CHUNK, InputStatistics
from spikerl_deploy.codec import Spikes, decode, encode
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.float_core import run_floats
from spikerl_deploy.integer_core import IntegerCore
from spikerl_deploy.loihi import IntegerLayer
from spikerl_deploy.policy import Policy, PopulationDecoder, SpikingLayer

SEARCH_STEPS = 1_500  # recorded control steps on which the scales of a layer are compared
POISSON_SEED = 0

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Agreement:
    """How near a quantized policy comes to its float policy on recorded data.

    Attributes:
        control_steps: recorded control steps.
        action_error: root mean square difference of actions, in half action ranges; None without a decoder.
        spike_error: mean difference of an output neuron's spike count in a control step.
    """

    control_steps: int
    action_error: float | None
    spike_error: float


def input_spikes(policy: Policy, recorded: NDArray[np.generic]) -> Spikes:
    """Input spikes [T, N, n_in] of recorded control steps.

    Args:
        recorded: observations [N, obs_dim], or for a core alone input spikes bool [N, T, n_in]. Under Poisson coding
            the spikes are drawn anew, from a stream of their own.

    Raises:
        SpikerlError: another shape, no control steps, or values that are not finite.
    """
    spikes = policy.encoder is None
    wanted = (policy.time_steps, policy.n_in) if policy.encoder is None else (policy.encoder.obs_dim,)
    if recorded.shape[1:] != wanted or len(recorded) == 0 or (recorded.dtype == bool) != spikes:
        what = "input spikes, bool" if spikes else "observations"
        sizes = ", ".join(map(str, wanted))
        raise SpikerlError(
            f"recorded data is {recorded.dtype} {recorded.shape}, the policy takes {what} [N, {sizes}]",
            "record it with the policy's own environment",
        )
    if spikes:
        return recorded.astype(bool).swapaxes(0, 1)
    observations = recorded.astype(np.float64)
    if not np.isfinite(observations).all():
        raise SpikerlError("recorded observations hold values that are not finite")
    generator = np.random.default_rng(POISSON_SEED)
    return encode(policy, observations, [generator] * len(observations)).swapaxes(0, 1)


def calibrate(
    policy: Policy,
    recorded: NDArray[np.generic],
    bits: int,
    decay_bits: int = DECAY_BITS_MAX,
    encoder_bits: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Policy, tuple[LayerReport, ...]]:
    """Quantize layer after layer, each on the inputs that the quantized layers before it give.

    For every scale that is tried, weights and bias are rounded so that the layer's currents stay (`reconstruction`);
    the scale is taken whose spike counts, in the last layer whose actions, are nearest to the float policy's.

    Args:
        recorded: as in `input_spikes`. bits, decay_bits, encoder_bits: as in `quantize`.
        progress: called with a line after each layer.

    Returns:
        The policy, and a report for each layer with what was observed on the data.

    Raises:
        SpikerlError: as `quantize`; or the data does not fit; or a current leaves the chip's state on it.
    """
    grid, source = Grid(bits), float_source(policy)
    encoder = quantized_encoder(source, encoder_bits)
    floats = input_spikes(source, recorded)
    quantized = floats if encoder is source.encoder else input_spikes(replace(source, encoder=encoder), recorded)
    chosen: list[IntegerLayer] = []
    for index, layer in enumerate(source.layers):
        rounded = round_decays(layer, decay_bits)
        statistics = InputStatistics(floats, quantized, layer.current_decay, rounded.current_decay)
        floats = _by_chunks(partial(_float_layer, layer), floats)
        counts = floats.sum(axis=0)
        decoder = source.decoder if index == len(source.layers) - 1 else None
        error = spike_error if decoder is None else partial(action_error, decoder, source.time_steps)
        chosen.append(_best(index, rounded, grid, statistics, quantized, error, counts))
        core = IntegerCore(chosen[-1:], source.time_steps)
        quantized = _by_chunks(partial(_integer_layer, core, None), quantized)
        differing = spike_error(quantized.sum(axis=0), counts)
        progress(f"layer {index + 1} of {len(source.layers)}: spike counts differ by {differing:.4f} a neuron")
    result = assemble(source, tuple(chosen), bits, encoder)
    return result, report_recorded(result, recorded)


def report_recorded(policy: Policy, recorded: NDArray[np.generic]) -> tuple[LayerReport, ...]:
    """A report for each layer of a quantized policy, with what is observed on recorded data as in `input_spikes`.

    Raises:
        SpikerlError: a current leaves the chip's state on the data.
    """
    source = float_source(policy)
    assert policy.integers is not None and policy.bits is not None
    grid, steps = Grid(policy.bits), policy.time_steps
    floats, quantized = input_spikes(source, recorded), input_spikes(policy, recorded)
    reports = []
    for index, (layer, integer) in enumerate(zip(source.layers, policy.integers, strict=True)):
        watch = StateWatch()
        floats = _by_chunks(partial(_float_layer, layer), floats)
        quantized = _by_chunks(partial(_integer_layer, IntegerCore([integer], steps), watch), quantized)
        observed = observed_states(index, watch, quantized.sum(axis=0), floats.sum(axis=0))
        reports.append(report_layer(index, layer, integer, grid, steps, observed))
    return tuple(reports)


def _float_layer(layer: SpikingLayer, spikes: Spikes) -> Spikes:
    return run_floats([layer], spikes)[0]


def _integer_layer(core: IntegerCore, watch: StateWatch | None, spikes: Spikes) -> Spikes:
    return core(spikes, watch)[0]


def _best(
    index: int,
    layer: SpikingLayer,
    grid: Grid,
    statistics: InputStatistics,
    inputs: Spikes,
    error: Callable[[Counts, Counts], float],
    wanted: Counts,
) -> IntegerLayer:
    """The layer at the scale with the least error of its spike counts on some of the recorded control steps."""
    some = np.linspace(0, len(wanted) - 1, min(SEARCH_STEPS, len(wanted)), dtype=int)
    inputs, wanted = inputs[:, some], wanted[some]
    rows = np.concatenate([layer.weight, layer.bias[:, None]], axis=1).astype(np.float64)
    rows = statistics.reachable(rows)
    time_steps = len(inputs)

    def differing(integer: IntegerLayer) -> float:
        return error(IntegerCore([integer], time_steps)(inputs)[0].sum(axis=0), wanted)

    found = layers_to_try(index, layer, grid, time_steps, lambda unit: statistics.round(rows / unit, grid))
    return min(found, key=differing)


def compare_recorded(policy: Policy, recorded: NDArray[np.generic]) -> Agreement:
    """How near the integers of a quantized policy come to its float policy, on recorded data as in `input_spikes`."""
    source = float_source(policy)
    assert policy.integers is not None
    core = IntegerCore(policy.integers, policy.time_steps)
    counts = _by_chunks(lambda part: core(part)[-1], input_spikes(policy, recorded)).sum(axis=0)
    floats = input_spikes(source, recorded)
    wanted = _by_chunks(lambda part: run_floats(source.layers, part)[-1], floats).sum(axis=0)
    decoder, steps = source.decoder, source.time_steps
    error = None if decoder is None else action_error(decoder, steps, counts, wanted)
    return Agreement(len(wanted), error, spike_error(counts, wanted))


def spike_error(counts: Counts, wanted: Counts) -> float:
    """Mean difference of spike counts [N, n]."""
    return float(np.abs(counts - wanted).mean())


def action_error(decoder: PopulationDecoder, time_steps: int, counts: Counts, wanted: Counts) -> float:
    """Root mean square difference, in half action ranges, of the actions of output spike counts [N, n_out]."""
    half = (decoder.action_high - decoder.action_low) / 2
    actions, targets = (decode(c, time_steps, decoder) for c in (counts, wanted))
    return float(np.sqrt(np.square((actions - targets) / half).mean()))


def _by_chunks(run: Callable[[Spikes], Spikes], spikes: Spikes) -> Spikes:
    """`run` over some control steps [T, N, n] at a time, to bound memory."""
    parts: Sequence[Spikes] = [run(spikes[:, i : i + CHUNK]) for i in range(0, spikes.shape[1], CHUNK)]
    return np.concatenate(parts, axis=1)
