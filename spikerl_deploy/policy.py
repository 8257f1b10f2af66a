"""The policy: encoder, spiking core, decoder and normalisation as plain arrays, checked when built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spikerl_deploy.errors import SpikerlError
from spikerl_deploy.loihi import IntegerLayer

Float = NDArray[np.float32]
Coding = Literal["regular", "poisson"]
CODINGS: tuple[Coding, ...] = ("regular", "poisson")
DEFAULT_DT = 1e-4  # seconds a time step; the value that snnTorch's NIR reader assumes
# Positive numbers that every runtime holds as a normal float32.
SCALAR_MIN, SCALAR_MAX = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


def is_positive_scalar(value: float) -> bool:
    """Whether a threshold, bound or time step stays positive, normal and finite in float32."""
    return bool(SCALAR_MIN <= value <= SCALAR_MAX)


def _check_positive(name: str, value: float) -> None:
    if not is_positive_scalar(value):
        raise SpikerlError(f"policy: {name} {value} must be positive and finite: {SCALAR_MIN:.3g} to {SCALAR_MAX:.3g}")


def _array(name: str, value: object, shape: tuple[int, ...] | None = None, ndim: int | None = None) -> Float:
    array = np.array(value, dtype=np.float32, order="C")  # a copy: the caller's array stays its own
    if shape is not None and array.shape != shape:
        raise SpikerlError(f"policy: {name} has shape {array.shape}, expected {shape}")
    if ndim is not None and array.ndim != ndim:
        raise SpikerlError(f"policy: {name} has {array.ndim} dimensions, expected {ndim}")
    if not np.isfinite(array).all():
        raise SpikerlError(f"policy: {name} holds values that are not finite")
    array.flags.writeable = False
    return array


@dataclass(frozen=True, eq=False)
class Normalization:
    """Observation z-scoring with the training run's statistics.

    Attributes:
        mean, std: [obs_dim], in the units of the observation; std > 0.
        clip: bound of the normalised observation, in standard deviations; finite, as JSON, C and ONNX write it.
    """

    mean: Float
    std: Float
    clip: float = 3.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", _array("normalisation mean", self.mean, ndim=1))
        object.__setattr__(self, "std", _array("normalisation std", self.std, self.mean.shape))
        if not (self.std > 0).all():
            raise SpikerlError("policy: normalisation std must be positive")
        _check_positive("normalisation clip", self.clip)


@dataclass(frozen=True, eq=False)
class PopulationEncoder:
    """Gaussian receptive fields: P neurons for each observation dimension (PopSAN, Tang et al. 2020, eq. 2).

    Attributes:
        mean, std: [obs_dim, P], in units of the normalised observation; std > 0.
        coding: `regular` integrates the activation and spikes at `threshold`; `poisson` draws Bernoulli spikes.
        threshold: accumulator level of `regular` coding, subtracted at a spike.
    """

    mean: Float
    std: Float
    coding: Coding = "regular"
    threshold: float = 0.999

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", _array("encoder mean", self.mean, ndim=2))
        object.__setattr__(self, "std", _array("encoder std", self.std, self.mean.shape))
        if not (self.std > 0).all():
            raise SpikerlError("policy: encoder std must be positive")
        if self.coding not in CODINGS:
            raise SpikerlError(f"policy: encoder coding '{self.coding}' is not one of {', '.join(CODINGS)}")
        _check_positive("encoder threshold", self.threshold)

    @property
    def obs_dim(self) -> int:
        return int(self.mean.shape[0])


@dataclass(frozen=True, eq=False)
class SpikingLayer:
    """An affine map and a population of current-based leaky integrate-and-fire neurons.

    Per time step: u = u * current_decay + W s + b; v = v * voltage_decay (0 where it spiked last) + u;
    spike where v > v_threshold.

    Attributes:
        weight: [n_out, n_in]. bias: [n_out].
        current_decay, voltage_decay: fraction kept each time step, in [0, 1).
        v_threshold: positive, in the units of v.
    """

    weight: Float
    bias: Float
    current_decay: float = 0.5
    voltage_decay: float = 0.75
    v_threshold: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", _array("weight", self.weight, ndim=2))
        object.__setattr__(self, "bias", _array("bias", self.bias, (self.weight.shape[0],)))
        for name in ("current_decay", "voltage_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise SpikerlError(f"policy: {name} {getattr(self, name)} is not in [0, 1)")
        _check_positive("v_threshold", self.v_threshold)

    @property
    def n_in(self) -> int:
        return int(self.weight.shape[1])

    @property
    def n_out(self) -> int:
        return int(self.weight.shape[0])


@dataclass(frozen=True, eq=False)
class PopulationDecoder:
    """Weighted firing rates of P neurons for each action dimension, squashed and scaled to the action range.

    Attributes:
        weight: [act_dim, P]. bias: [act_dim].
        action_low, action_high: [act_dim], in the units of the environment's action.
    """

    weight: Float
    bias: Float
    action_low: Float
    action_high: Float

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", _array("decoder weight", self.weight, ndim=2))
        for name in ("bias", "action_low", "action_high"):
            object.__setattr__(self, name, _array(f"decoder {name}", getattr(self, name), (self.act_dim,)))
        if not (self.action_high > self.action_low).all():
            raise SpikerlError("policy: decoder action_high must exceed action_low in every dimension")

    @property
    def act_dim(self) -> int:
        return int(self.weight.shape[0])


@dataclass(frozen=True, eq=False)
class Policy:
    """A trained spiking policy, free of any framework.

    Attributes:
        layers: the float core that the NIR nodes hold; for a quantized policy, the integers times their scale.
        time_steps: T, time steps a control step.
        dt: seconds a time step, as stated to NIR readers.
        normalization, encoder, decoder, env_id: None in a core that came without them.
        integers: what a chip gets, one for each layer, or None in a float policy.
        trained: the float layers before quantization, if the file carries them.
        trained_encoder: the encoder before quantization, where that changed it.
        bits: weight bits of a quantized policy.
        provenance: manifest of the run and the export.
    """

    layers: tuple[SpikingLayer, ...]
    time_steps: int = 5
    dt: float = DEFAULT_DT
    normalization: Normalization | None = None
    encoder: PopulationEncoder | None = None
    decoder: PopulationDecoder | None = None
    env_id: str | None = None
    integers: tuple[IntegerLayer, ...] | None = None
    trained: tuple[SpikingLayer, ...] | None = None
    trained_encoder: PopulationEncoder | None = None
    bits: int | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.layers:
            raise SpikerlError("policy: the core has no layers")
        if self.time_steps < 1:
            raise SpikerlError(f"policy: time_steps {self.time_steps} must be positive")
        _check_positive("dt", self.dt)
        for layer in self.layers:  # a NIR node holds dt / (1 - decay), in float32
            slowest = max(layer.current_decay, layer.voltage_decay)
            _check_positive(f"dt {self.dt} / (1 - decay {slowest}) =", self.dt / (1.0 - slowest))
        _check_chain("layer", [layer.weight.shape for layer in self.layers])
        shapes = [layer.weight.shape for layer in self.layers]
        for name, other in (("integers", self.integers), ("trained", self.trained)):
            if other is not None and [layer.weight.shape for layer in other] != shapes:
                raise SpikerlError(f"policy: the {name} do not have the shapes of the core")
        if (self.integers is None) != (self.bits is None):
            raise SpikerlError("policy: integers and bits come together or not at all")
        self._check_codec()

    def _check_codec(self) -> None:
        for encoder in (self.encoder, self.trained_encoder):
            if encoder is not None and encoder.mean.size != self.n_in:
                raise SpikerlError(f"policy: encoder drives {encoder.mean.size} inputs, the core has {self.n_in}")
        if self.decoder is not None and self.decoder.weight.size != self.n_out:
            raise SpikerlError(f"policy: decoder reads {self.decoder.weight.size} outputs, the core has {self.n_out}")
        if self.normalization is None or self.encoder is None:
            return
        if self.normalization.mean.size != self.encoder.obs_dim:
            raise SpikerlError(
                f"policy: normalisation has {self.normalization.mean.size} dimensions, "
                f"the encoder {self.encoder.obs_dim}"
            )

    @property
    def n_in(self) -> int:
        """Input neurons of the core, obs_dim * P."""
        return self.layers[0].n_in

    @property
    def n_out(self) -> int:
        """Output neurons of the core, act_dim * P."""
        return self.layers[-1].n_out

    @property
    def sizes(self) -> tuple[int, ...]:
        """Neurons of the input and of every layer, such as (170, 256, 256, 60)."""
        return (self.n_in, *(layer.n_out for layer in self.layers))

    def codec(self) -> tuple[PopulationEncoder, PopulationDecoder]:
        """Encoder and decoder.

        Raises:
            SpikerlError: the policy is a core alone.
        """
        if self.encoder is None or self.decoder is None:
            raise SpikerlError("the policy has no encoder and decoder: a core alone", "take a run: spikerl export RUN")
        return self.encoder, self.decoder

    def ann_sizes(self) -> tuple[int, ...]:
        """Layer sizes of the dense ANN of the same task: observation, the core's hidden layers, action.

        Raises:
            SpikerlError: the policy is a core alone.
        """
        encoder, decoder = self.codec()
        return (encoder.obs_dim, *self.sizes[1:-1], decoder.act_dim)

    def as_trained(self) -> Policy:
        """The float policy before quantization, as far as this one carries it; a float policy as it is."""
        return replace(
            self,
            layers=self.layers if self.trained is None else self.trained,
            encoder=self.encoder if self.trained_encoder is None else self.trained_encoder,
            integers=None,
            bits=None,
            trained=None,
            trained_encoder=None,
        )

    @property
    def closed_loop_ready(self) -> bool:
        """Whether the policy can act by itself: it has an encoder, a decoder and an environment."""
        return self.encoder is not None and self.decoder is not None and self.env_id is not None


def _check_chain(what: str, shapes: Sequence[tuple[int, ...]]) -> None:
    for index in range(1, len(shapes)):
        if shapes[index][1] != shapes[index - 1][0]:
            raise SpikerlError(
                f"policy: {what} {index} takes {shapes[index][1]} inputs, "
                f"{what} {index - 1} gives {shapes[index - 1][0]}"
            )
