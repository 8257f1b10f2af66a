"""Post-training quantization of a policy to Loihi's integers by its weights alone; `calibrate` does it by data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from exporters.grid import DECAY_BITS_MAX, Grid, candidate_units, dequantize, place, round_decays
from exporters.layer_report import LayerReport, report_layer
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.loihi import IntegerLayer
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


def round_encoder(encoder: PopulationEncoder, bits: int) -> PopulationEncoder:
    """Centres on a signed and widths on an unsigned grid of so many bits, each from its largest value.

    Raises:
        SpikerlError: bits outside [2, 16].
    """
    if not MIN_ENCODER_BITS <= bits <= MAX_ENCODER_BITS:
        raise SpikerlError(
            f"encoder bits {bits} is outside [{MIN_ENCODER_BITS}, {MAX_ENCODER_BITS}]", "use --encoder-bits 8"
        )
    signed, unsigned = (1 << (bits - 1)) - 1, (1 << bits) - 1
    mean_unit = (float(np.abs(encoder.mean).max()) or 1.0) / signed
    std_unit = float(encoder.std.max()) / unsigned
    mean = np.rint(encoder.mean / mean_unit) * mean_unit
    std = np.maximum(np.rint(encoder.std / std_unit), 1) * std_unit  # a width of zero would be no receptive field
    return replace(encoder, mean=_float(mean), std=_float(std))


def _float(values: NDArray[np.float64]) -> Float:
    return values.astype(np.float32)


def _round_layer(index: int, layer: SpikingLayer, grid: Grid, time_steps: int) -> IntegerLayer:
    weight = layer.weight.astype(np.float64)

    def error(unit: float) -> float:
        return float(np.square(grid.round(weight / unit) * unit - weight).sum())

    unit = min(candidate_units(index, layer, grid, time_steps), key=error)
    return place(
        index,
        layer,
        grid,
        grid.round(weight / unit),
        grid.round_bias(layer.bias.astype(np.float64) / unit),
        unit,
        time_steps,
    )
