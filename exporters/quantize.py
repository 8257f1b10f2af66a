"""Post-training quantization of a policy to Loihi's integers by its weights alone; `calibrate` does it by data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from exporters.grid import (
    DECAY_BITS_MAX,
    Grid,
    dequantize,
    holds_current,
    layers_to_try,
    round_decays,
    trained_unit,
)
from exporters.layer_report import LayerReport, report_layer
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.loihi import STATE_LIMIT, IntegerLayer, state_bound
from spikerl_deploy.policy import Float, Policy, PopulationEncoder, SpikingLayer

MIN_ENCODER_BITS, MAX_ENCODER_BITS = 2, 16


def quantize(
    policy: Policy, bits: int, decay_bits: int = DECAY_BITS_MAX, encoder_bits: int | None = None
) -> tuple[Policy, tuple[LayerReport, ...]]:
    """Round every layer's weights, bias, decays and threshold, each layer at the scale with the least squared error.

    Args:
        policy: a float policy, or a quantized one that carries its trained layers.
        bits: weight bits, 2 to 8; a bias keeps 8 and may take several always-firing neurons.
        decay_bits: grid of the decays, 1 to 12 bits; 12 is the chip's own.
        encoder_bits: bits of the encoder's centres and widths, 2 to 16; None leaves them float32.

    Returns:
        The policy with integers, whose float layers are the integers times their scale and whose `trained`
        layers are those that were quantized; and a report for each layer.

    Raises:
        SpikerlError: bits out of range, or a layer whose threshold or state cannot be represented.
    """
    grid, source = Grid(bits), float_source(policy)
    layers = tuple(round_decays(layer, decay_bits) for layer in source.layers)
    integers = tuple(_round_layer(index, layer, grid, policy.time_steps) for index, layer in enumerate(layers))
    reports = tuple(
        report_layer(index, layer, integer, grid, policy.time_steps)
        for index, (layer, integer) in enumerate(zip(layers, integers, strict=True))
    )
    return assemble(source, integers, bits, quantized_encoder(source, encoder_bits)), reports


def float_source(policy: Policy) -> Policy:
    """The float policy to quantize: itself, or what a quantized one was made from.

    Raises:
        SpikerlError: it is quantized and does not carry its trained weights.
    """
    if policy.integers is not None and policy.trained is None:
        raise SpikerlError(
            "the policy is quantized and does not carry its trained weights", "export from the run or its checkpoint"
        )
    return policy.as_trained()


def assemble(
    source: Policy, integers: tuple[IntegerLayer, ...], bits: int, encoder: PopulationEncoder | None
) -> Policy:
    """The quantized policy of a float policy, with these integer layers and this encoder."""
    return replace(
        source,
        layers=tuple(map(dequantize, integers)),
        integers=integers,
        bits=bits,
        trained=source.layers,
        encoder=encoder,
        trained_encoder=None if encoder is source.encoder else source.encoder,
    )


def quantized_encoder(source: Policy, bits: int | None) -> PopulationEncoder | None:
    """The policy's encoder on a grid of so many bits; as it is without bits, or where there is none."""
    return source.encoder if source.encoder is None or bits is None else round_encoder(source.encoder, bits)


def check_encoder_bits(bits: int) -> None:
    """Refuse a number of bits that an encoder cannot have.

    Raises:
        SpikerlError: outside [2, 16].
    """
    if not MIN_ENCODER_BITS <= bits <= MAX_ENCODER_BITS:
        raise SpikerlError(
            f"encoder bits {bits} is outside [{MIN_ENCODER_BITS}, {MAX_ENCODER_BITS}]", "use --encoder-bits 8"
        )


def round_encoder(encoder: PopulationEncoder, bits: int) -> PopulationEncoder:
    """Centres on a signed and widths on an unsigned grid of so many bits, each from its largest value."""
    check_encoder_bits(bits)
    signed, unsigned = (1 << (bits - 1)) - 1, (1 << bits) - 1
    mean_unit = (float(np.abs(encoder.mean).max()) or 1.0) / signed
    std_unit = float(encoder.std.max()) / unsigned
    mean = np.rint(encoder.mean / mean_unit) * mean_unit
    std = np.maximum(np.rint(encoder.std / std_unit), 1) * std_unit  # a width of zero would be no receptive field
    return replace(encoder, mean=_float(mean), std=_float(std))


def _float(values: NDArray[np.float64]) -> Float:
    return values.astype(np.float32)


def _round_layer(index: int, layer: SpikingLayer, grid: Grid, time_steps: int) -> IntegerLayer:
    weight, bias = layer.weight.astype(np.float64), layer.bias.astype(np.float64)

    def rounded(unit: float) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        return grid.round(weight / unit), grid.round_bias(bias / unit)

    def error(integer: IntegerLayer) -> float:
        return float(np.square(integer.weight * trained_unit(layer, integer) - weight).sum())

    found = layers_to_try(index, layer, grid, time_steps, rounded)
    held = [integer for integer in found if holds_current(integer, time_steps)]
    if not held:
        share = state_bound(found[-1], time_steps)[0] / STATE_LIMIT
        raise SpikerlError(
            f"layer {index}: at every scale some input makes a current overflow the chip's 24-bit state "
            f"({share:.0%} at the coarsest)",
            "its weights are too large beside its threshold; train with a v_threshold nearer to them",
        )
    return min(held, key=error)
