"""A quantized policy for firmware: its integers as strict JSON, and as one C header with a reference implementation.

docs/firmware.md describes both layouts.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikerl_deploy._version import __version__
from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.files import write_text
from spikerl_deploy.loihi import WEIGHT_MIN, IntegerLayer
from spikerl_deploy.policy import Float, Policy

SCHEMA = "spikerl.firmware/1"
PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
IN_COMMENT = re.compile(r"[^A-Za-z0-9 ._:,;=+()\[\]@/-]")  # no *, \ or ?: nothing ends, joins or opens a comment
COMMENT_WIDTH, NUMBERS_A_LINE = 200, 24
SUM_LIMIT = 1 << 31  # the reference implementation accumulates in 32 bits


def export_json(policy: Policy, path: Path, force: bool = False) -> None:
    """Write integers, encoder, decoder and normalisation as strict JSON of schema `spikerl.firmware/1`.

    Raises:
        SpikerlError: a float policy, a number that JSON has not, or a file that exists and `force` is false.
    """
    layers = _integers(policy, "json")
    document = {
        "schema": SCHEMA,
        "env": policy.env_id,
        "sizes": list(policy.sizes),
        "time_steps": policy.time_steps,
        "dt_s": policy.dt,
        "bits": policy.bits,
        "layers": [_layer_document(layer) for layer in layers],
        "normalization": _part(policy.normalization, ("mean", "std", "clip")),
        "encoder": _part(policy.encoder, ("coding", "threshold", "mean", "std")),
        "decoder": _part(policy.decoder, ("weight", "bias", "action_low", "action_high")),
        "integers_sha256": integers_sha256(layers, policy.time_steps),
        "provenance": _without_nan(policy.provenance),
    }
    try:
        text = _pretty(document) + "\n"
    except (ValueError, TypeError) as error:
        raise SpikerlError(f"the policy holds what strict JSON cannot: {error}") from error
    write_text(path, text, force)


def export_c_header(policy: Policy, path: Path, force: bool = False, *, prefix: str = "spikerl") -> None:
    """Write one C99 and C++ header: integers, constants, and a reference implementation in exact integer arithmetic.

    Args:
        prefix: a C identifier that every name in the header begins with, in capitals for macros.

    Raises:
        SpikerlError: a float policy, a prefix that is no identifier, or a file that exists and `force` is false.
    """
    layers = _integers(policy, "c-header")
    if not PREFIX.fullmatch(prefix):
        raise SpikerlError(
            f"prefix '{prefix}' is no C identifier: a letter, then letters, digits and underscores",
            "spikerl export SOURCE --bits 8 --to c-header --set prefix=spikerl",
        )
    macros, arrays = _macros(policy, layers), _arrays(policy, layers)
    template = Template(files("exporters").joinpath("c_template.h").read_text(encoding="utf-8"))
    text = template.substitute(
        p=prefix,
        P=prefix.upper(),
        banner=_banner(policy, layers, arrays, prefix),
        constants="\n".join(f"#define {prefix.upper()}_{name} {value}" for name, value in macros.items()),
        data="\n".join(_array(prefix, name, values) for name, values in arrays.items()),
        steps="\n".join(_steps(layers, prefix)),
    )
    write_text(path, text, force)


def integers_sha256(layers: Sequence[IntegerLayer], time_steps: int) -> str:
    """SHA-256 over what a chip or firmware holds, little-endian.

    T as int32, then for each layer: weights [n_out, n_in] as int8 (mantissa / 2), bias [n_out] as int32,
    weight_exp, du, dv and vth as int32.
    """
    digest = hashlib.sha256(np.array(time_steps, "<i4").tobytes())
    for layer in layers:
        digest.update(_int8(layer).tobytes() + layer.bias.astype("<i4").tobytes())
        digest.update(np.array([layer.weight_exp, layer.du, layer.dv, layer.vth], "<i4").tobytes())
    return digest.hexdigest()


def _integers(policy: Policy, name: str) -> tuple[IntegerLayer, ...]:
    if policy.integers is None:
        raise SpikerlError(
            f"format '{name}' holds integers, the policy is a float one", f"spikerl export SOURCE --bits 8 --to {name}"
        )
    for index, layer in enumerate(policy.integers):
        if 0 in layer.weight.shape:
            raise SpikerlError(f"layer {index} has no neurons or no inputs: {layer.weight.shape}")
        if layer.weight.shape[1] * -WEIGHT_MIN + int(np.abs(layer.bias).max()) >= SUM_LIMIT:
            raise SpikerlError(f"layer {index} has {layer.weight.shape[1]} inputs, too many for 32-bit sums")
    return policy.integers


def _int8(layer: IntegerLayer) -> NDArray[np.int8]:
    return (layer.weight // 2).astype(np.int8)


def _layer_document(layer: IntegerLayer) -> dict[str, Any]:
    return {
        "n_in": layer.weight.shape[1],
        "n_out": layer.weight.shape[0],
        "weight_exp": layer.weight_exp,
        "du": layer.du,
        "dv": layer.dv,
        "vth": layer.vth,
        "scale": layer.scale,
        "bias": layer.bias.tolist(),
        "weight": layer.weight.tolist(),
        "weight_int8": _int8(layer).tolist(),
    }


def _part(part: object | None, names: Iterable[str]) -> dict[str, Any] | None:
    """Fields of a part of the policy; a float32 becomes the float64 of the same value, so that it reads back."""
    if part is None:
        return None
    values = {name: getattr(part, name) for name in names}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}


def _without_nan(value: Any) -> Any:
    """Provenance may hold a return that is not finite, which strict JSON has not: it becomes null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _pretty(value: Any, indent: str = "") -> str:
    """Strict JSON, indented, with a list of numbers on one line."""
    inner = indent + "  "
    if isinstance(value, dict) and value:
        items = [f"{inner}{json.dumps(str(key))}: {_pretty(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, list | dict) for item in value):
        return "[\n" + ",\n".join(inner + _pretty(item, inner) for item in value) + f"\n{indent}]"
    return json.dumps(value, allow_nan=False)


def _banner(policy: Policy, layers: Sequence[IntegerLayer], arrays: dict[str, NDArray[np.generic]], prefix: str) -> str:
    """What the header is, where it came from, and what it takes."""
    neurons = sum(layer.weight.shape[0] for layer in layers)
    core = sum(values.nbytes for values in arrays.values() if values.dtype != np.float32)
    codec = sum(values.nbytes for values in arrays.values()) - core
    state = 8 * neurons + neurons + -neurons % 4  # u and v, s, and the padding to int32
    upper = prefix.upper()
    made = policy.provenance
    lines = [
        f"Spiking policy {'-'.join(map(str, policy.sizes))}, {policy.bits}-bit weights, T = {policy.time_steps}, "
        f"written by spikerl-deploy {__version__}.",
        f"Environment: {policy.env_id or 'none'}",
        f"Integers, SHA-256: {integers_sha256(layers, policy.time_steps)}",
        f"Made: {made.get('created', 'unknown')}",
        *(f"From: {role}: {source}" for role, source in _sources(made)),
        "",
        f"Flash: {core} bytes of constants for the core, {codec} bytes for encoder and decoder, and the code.",
        f"Static RAM: {state} bytes, one {prefix}_state, where {upper}_IMPLEMENTATION is defined; no heap.",
        "",
        f"In one source file: define {upper}_IMPLEMENTATION, and {upper}_CODEC for encoder and decoder (needs libm),",
        "before including this header. The core is exact integer arithmetic: the same spikes on every machine.",
        "The encoder rests on expf, the decoder on tanhf, whose last bit differs between libraries: an input spike",
        "may differ where an activation is that close to the threshold.",
    ]
    return "\n".join(["/*", *(f" * {_comment(line)}".rstrip() for line in lines), " */"])


def _sources(provenance: dict[str, Any]) -> list[tuple[str, str]]:
    made_from = provenance.get("made_from")
    if not isinstance(made_from, dict):
        return []
    return [
        (str(role), f"{source.get('name')}, SHA-256 {source.get('sha256')}")
        for role, source in made_from.items()
        if isinstance(source, dict)
    ]


def _comment(text: str) -> str:
    """Text that cannot leave a C comment, whatever it was."""
    return IN_COMMENT.sub("_", text)[:COMMENT_WIDTH]


def _macros(policy: Policy, layers: Sequence[IntegerLayer]) -> dict[str, str]:
    neurons = [layer.weight.shape[0] for layer in layers]
    encoder, decoder, normalization = policy.encoder, policy.decoder, policy.normalization
    macros: dict[str, int | str] = {
        "T": policy.time_steps,
        "N_IN": policy.n_in,
        "N_OUT": policy.n_out,
        "N_LAYERS": len(layers),
        "N_NEURONS": sum(neurons),
        "OUT_OFFSET": sum(neurons[:-1]),
    }
    for index, layer in enumerate(layers):
        macros |= {f"L{index}_N_IN": layer.weight.shape[1], f"L{index}_N_OUT": layer.weight.shape[0]}
        macros |= {f"L{index}_{name.upper()}": getattr(layer, name) for name in ("weight_exp", "du", "dv", "vth")}
    macros |= {
        "HAS_NORMALIZATION": int(normalization is not None),
        "HAS_ENCODER": int(encoder is not None),
        "POISSON": int(encoder is not None and encoder.coding == "poisson"),
        "HAS_DECODER": int(decoder is not None),
    }
    if normalization is not None:
        macros["OBS_CLIP"] = _literal("normalisation clip", normalization.clip)
    if encoder is not None:
        macros |= {"OBS_DIM": encoder.obs_dim, "POPULATION": encoder.mean.shape[1]}
        macros["ENCODER_THRESHOLD"] = _literal("encoder threshold", encoder.threshold)
    if decoder is not None:
        macros |= {"ACT_DIM": decoder.act_dim, "ACT_POPULATION": decoder.weight.shape[1]}
    return {
        name: f"({value})" if isinstance(value, int) and value < 0 else str(value) for name, value in macros.items()
    }


def _arrays(policy: Policy, layers: Sequence[IntegerLayer]) -> dict[str, NDArray[np.generic]]:
    """Data by name: int8 weights [n_out][n_in], int32 biases, float32 tables."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for index, layer in enumerate(layers):
        arrays |= {f"weight_{index}": _int8(layer), f"bias_{index}": layer.bias}
    tables: dict[str, Float] = {}
    if policy.normalization is not None:
        tables |= {"obs_mean": policy.normalization.mean, "obs_std": policy.normalization.std}
    if policy.encoder is not None:
        tables |= {"field_mean": policy.encoder.mean, "field_std": policy.encoder.std}
    if policy.decoder is not None:
        tables |= {
            f"{prefix}{name}": getattr(policy.decoder, name)
            for prefix, name in (("decoder_", "weight"), ("decoder_", "bias"), ("", "action_low"), ("", "action_high"))
        }
    return arrays | tables


def _array(prefix: str, name: str, values: NDArray[np.generic]) -> str:
    kinds = {"i1": "int8_t", "i4": "int32_t", "f4": "float"}
    kind = kinds[values.dtype.str[1:]]
    flat = values.ravel().tolist()
    numbers = [_literal(name, value) for value in flat] if kind == "float" else list(map(str, flat))
    rows = [", ".join(numbers[i : i + NUMBERS_A_LINE]) for i in range(0, len(numbers), NUMBERS_A_LINE)]
    body = ",\n    ".join(rows)
    return f"static const {kind} {prefix}_{name}[{len(flat)}] = {{\n    {body}\n}};"


def _literal(name: str, value: float) -> str:
    """A decimal literal that reads back to the same float32."""
    with np.errstate(over="ignore"):
        single = np.float32(value)
    if not np.isfinite(single):
        raise SpikerlError(f"{name} {value} is no finite float32, which a C header cannot hold")
    return f"{np.format_float_scientific(single, unique=True, trim='0')}f"


def _steps(layers: Sequence[IntegerLayer], prefix: str) -> list[str]:
    """A call for each layer: where its spikes come from, and where its state lies in that of all."""
    lines, source, offset = [], "in", 0
    for index, layer in enumerate(layers):
        macro = f"{prefix.upper()}_L{index}"
        lines += [
            f"    {prefix}_layer({source}, state->s + {offset}, state->u + {offset}, state->v + {offset},",
            f"        {prefix}_weight_{index}, {prefix}_bias_{index}, {macro}_N_IN, {macro}_N_OUT,",
            f"        {macro}_WEIGHT_EXP, {macro}_DU, {macro}_DV, {macro}_VTH);",
        ]
        source, offset = f"state->s + {offset}", offset + layer.weight.shape[0]
    return lines
