"""Settings of a training run: one dataclass, its TOML form, and what it is resolved from. Loads no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from spikerl_deploy.errors import SpikerlError, unknown
from training.setting_sources import layered
from training.setting_values import coerce, toml_value

MAX_THREADS = 256  # more than machines have; libraries crash where the system refuses a thread


def _setting(default: Any, doc: str, choices: tuple[str, ...] = (), kind: type | None = None) -> Any:
    """A field with its documentation; `kind` is the type of a setting whose default is None."""
    return field(default=default, metadata={"doc": doc, "choices": choices, "kind": kind or type(default)})


@dataclass(frozen=True)
class Settings:
    """What decides a run. The defaults are PopSAN's where it has one (Tang et al. 2020), TD3's elsewhere."""

    env: str = _setting("InvertedPendulum-v5", "Gymnasium id of a MuJoCo environment")
    steps: int = _setting(1_000_000, "environment steps of each seed, over all its environments and ranks")
    seed: int = _setting(0, "seed of networks, exploration, replay sampling and environment")
    seeds: int = _setting(1, "independent runs in one process, with seeds from `seed` on, their updates batched")
    num_envs: int = _setting(1, "environments side by side, of each seed on each rank")
    env_workers: bool = _setting(False, "step each environment in a process of its own")
    # actor
    actor: str = _setting(
        "spiking", "what acts; mlp: a dense network with ReLU, the baseline without spikes", ("spiking", "mlp")
    )
    hidden: tuple[int, ...] = _setting((256, 256), "neurons of each hidden layer of the actor")
    population: int = _setting(10, "P, neurons for each observation and each action dimension")
    time_steps: int = _setting(5, "T, time steps a control step")
    coding: str = _setting("regular", "input coding", ("regular", "poisson"))
    encoder_range: float = _setting(3.0, "receptive field centres span [-range, range]")
    encoder_std: float = _setting(math.sqrt(0.15), "initial width of a receptive field")
    current_decay: float = _setting(0.5, "fraction of the current kept each time step")
    voltage_decay: float = _setting(0.75, "fraction of the voltage kept each time step")
    v_threshold: float = _setting(0.5, "firing threshold")
    readout: str = _setting(
        "rates",
        "what of the output neurons becomes actions: firing rates, or (for ablation, no chip gives it) the voltages at "
        "the last time step of ones that do not spike",
        ("rates", "membrane"),
    )
    surrogate: str = _setting(
        "rectangular",
        "surrogate gradient",
        ("rectangular", "sigmoid", "gaussian", "triangular", "arctan", "fast_sigmoid"),
    )
    surrogate_width: float = _setting(
        0.5, "half width of the rectangular and the triangular surrogate, standard deviation of the Gaussian; in v"
    )
    synaptic_norm: str = _setting(
        "none",
        "normalise each neuron's synaptic input over batch and time steps; folded into the weights at export",
        ("none", "batch"),
    )
    # 0.1 follows the weights closest: in two runs 2 % of a standard deviation off; 4 to 6 % with 0.01, 4 % with 1
    norm_momentum: float = _setting(0.1, "share of the new batch in the running statistics of synaptic_norm")
    # TD3
    critic_hidden: tuple[int, ...] = _setting((256, 256), "units of each hidden critic layer")
    batch_size: int = _setting(100, "transitions an update")
    buffer_size: int = _setting(1_000_000, "transitions the replay buffer holds")
    start_steps: int = _setting(None, "steps with uniformly random actions; 10,000 or a twentieth of steps", kind=int)
    update_after: int = _setting(1_000, "steps before the first update")
    update_to_data: float = _setting(1.0, "updates for each environment step of a rank")
    update_every: int = _setting(1, "a rank's steps between updates; as many follow at once as fell due")
    gamma: float = _setting(0.99, "discount")
    polyak: float = _setting(0.995, "share of the old target kept at an update")
    actor_lr: float = _setting(3e-4, "Adam step size of the actor")
    critic_lr: float = _setting(1e-3, "Adam step size of the critics")
    explore_noise: float = _setting(0.1, "std of exploration noise, in half action ranges")
    target_noise: float = _setting(0.2, "std of target policy smoothing, in half action ranges")
    noise_clip: float = _setting(0.5, "bound of target policy smoothing, in half action ranges")
    policy_delay: int = _setting(2, "critic updates for each actor update")
    target_actor: str = _setting(
        "copy",
        "what follows the actor for the critics' targets: an averaged copy, or a dense proxy trained to imitate it "
        "(Proxy Target, Xu et al. 2025, arXiv 2505.24161)",
        ("copy", "proxy"),
    )
    proxy_hidden: tuple[int, ...] = _setting((512, 512), "units of each hidden layer of the proxy")
    proxy_lr: float = _setting(1e-3, "Adam step size of the proxy; its authors take 3e-3 with one step")
    proxy_steps: int = _setting(3, "batches that the proxy imitates the actor on before each critic update")
    observation_clip: float = _setting(3.0, "bound of the z-scored observation")
    # evaluation
    eval_every: int = _setting(None, "steps between evaluations; 5,000 or a twentieth of steps", kind=int)
    eval_episodes: int = _setting(10, "episodes of an evaluation, on environments of their own")
    eval_seed: int = _setting(10_000, "seed of the first evaluation episode")
    stop_return: float | None = _setting(
        None, "stop once an evaluation's mean return reaches this, of every seed", kind=float
    )
    # keeping
    checkpoint_every: int = _setting(None, "steps between states to resume from; as eval_every", kind=int)
    save_replay: bool = _setting(True, "keep the replay buffer in the run folder: what exact resuming needs")
    # machine
    device: str = _setting("auto", "where the networks live", ("auto", "cpu", "cuda"))
    bf16: bool = _setting(False, "BF16 autocast of the actor; critics, targets and losses stay in FP32")
    compile: str = _setting(
        "auto",
        "compile the update with torch.compile; auto: for runs of 100,000 updates or more",
        ("auto", "on", "off"),
    )
    cuda_graphs: bool = _setting(True, "replay the update as CUDA graphs, on CUDA and one rank")
    dist_backend: str = _setting(
        "auto", "how ranks talk; auto: nccl on CUDA, gloo on the CPU", ("auto", "nccl", "gloo", "mpi")
    )
    threads: int = _setting(1, "torch threads on the CPU")
    tensorboard: bool = _setting(True, "write TensorBoard event files")
    carbon: bool = _setting(True, "track energy and carbon with CodeCarbon, offline")
    country: str = _setting("USA", "ISO 3166 alpha-3 code whose carbon intensity CodeCarbon assumes")
    carbon_intensity: float | None = _setting(
        None, "carbon intensity of the electricity in g CO2eq/kWh; none: the mean of the country", kind=float
    )

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.default is None and value == "none":  # how a flag unsets what a recipe sets
                value = None
                object.__setattr__(self, item.name, None)
            if value is not None or item.default is not None:
                value = coerce(item.name, item.metadata["kind"], value)
                object.__setattr__(self, item.name, value)
            choices = item.metadata["choices"]
            if choices and value not in choices:
                raise unknown(f"value of setting '{item.name}'", str(value), choices, "spikerl train --list-settings")
        if self.start_steps is None:
            object.__setattr__(self, "start_steps", min(10_000, self.steps // 20))
        if self.eval_every is None:
            object.__setattr__(self, "eval_every", max(min(5_000, self.steps // 20), 1))
        if self.checkpoint_every is None:
            object.__setattr__(self, "checkpoint_every", self.eval_every)
        self._check_ranges()

    def _check_ranges(self) -> None:
        positive = (
            *("steps", "population", "time_steps", "encoder_range", "encoder_std", "v_threshold", "surrogate_width"),
            *("batch_size", "buffer_size", "update_every", "actor_lr", "critic_lr", "policy_delay"),
            *("observation_clip", "eval_every", "eval_episodes", "threads", "seeds", "num_envs", "update_to_data"),
            *("checkpoint_every", "proxy_lr", "proxy_steps"),
        )
        for name in positive:
            _require(name, getattr(self, name), getattr(self, name) > 0, "must be positive")
        for name in ("start_steps", "update_after", "explore_noise", "target_noise", "noise_clip", "seed", "eval_seed"):
            _require(name, getattr(self, name), getattr(self, name) >= 0, "must not be negative")
        for name, last in (("seed", self.seed + self.seeds - 1), ("eval_seed", self.eval_seed)):
            _require(name, getattr(self, name), last < 2**32, "must be below 2^32")
        for name in ("current_decay", "voltage_decay", "gamma", "polyak"):
            _require(name, getattr(self, name), 0 <= getattr(self, name) < 1, "must be in [0, 1)")
        _require("norm_momentum", self.norm_momentum, 0 < self.norm_momentum <= 1, "must be in (0, 1]")
        enough = self.synaptic_norm == "none" or self.batch_size * self.time_steps > 1
        _require("batch_size", self.batch_size, enough, "with one time step is too few for synaptic_norm 'batch'")
        _require("threads", self.threads, self.threads <= MAX_THREADS, f"must be at most {MAX_THREADS}")
        grams = self.carbon_intensity
        _require(
            "carbon_intensity", grams, grams is None or grams > 0, "must be positive, or none for the country's mean"
        )
        for name in ("hidden", "critic_hidden", "proxy_hidden"):
            sizes = getattr(self, name)
            _require(name, sizes, len(sizes) > 0 and min(sizes) > 0, "must be a list of positive sizes")
        for name, plain in (("synaptic_norm", "none"), ("readout", "rates"), ("target_actor", "copy")):
            value = getattr(self, name)
            if self.actor != "spiking" and value != plain:
                raise SpikerlError(
                    f"setting '{name}' = '{value}' is of spiking actors, not of actor '{self.actor}'",
                    f"leave one out: --actor spiking, or --set {name}={plain}",
                )

    @property
    def undeployable(self) -> str | None:
        """Why no chip can run what this run trains; None where one can."""
        if self.actor == "mlp":
            return "an mlp actor is the dense baseline of the results and has no spikes to export"
        if self.readout == "membrane":
            return (
                "a membrane readout is for ablation: its output neurons do not spike, and a chip gives out spikes only"
            )
        return None

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds that are trained side by side."""
        return tuple(range(self.seed, self.seed + self.seeds))

    def to_toml(self) -> str:
        """The settings as a TOML document that `from_sources` reads back; unset values are left out."""
        lines = []
        for name, value in asdict(self).items():
            if value is not None:
                lines.append(f"{name} = {toml_value(value)}")
        return "\n".join(lines) + "\n"


def _require(name: str, value: object, holds: bool, rule: str) -> None:
    if not holds:
        raise SpikerlError(f"setting '{name}' = {value!r} {rule}", f"set it with --set {name}=VALUE")


def from_sources(
    config: Path | None = None,
    environment: Mapping[str, str] | None = None,
    assignments: list[str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """Resolve settings: flags over `key=value` assignments over environment over config file over defaults.

    Args:
        config: TOML file with settings at the top level.
        environment: variables; those named SPIKERL_TRAIN_<SETTING> count.
        assignments: `key=value` texts.
        flags: values of flags that were given; None means not given.

    Raises:
        SpikerlError: an unknown key, a value of the wrong type or range, an unreadable file.
    """
    known = [item.name for item in fields(Settings)]
    return Settings(**layered(known, config, environment, assignments, flags))


def completed(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a run folder or a sweep keeps them, with the defaults of those that came to be after it was made."""
    defaults = {
        item.name: list(item.default) if isinstance(item.default, tuple) else item.default for item in fields(Settings)
    }
    return defaults | dict(stored)


def describe_settings() -> list[dict[str, Any]]:
    """Name, default, documentation and choices of every setting."""
    return [
        {"name": item.name, "default": item.default, "doc": item.metadata["doc"], "choices": item.metadata["choices"]}
        for item in fields(Settings)
    ]
