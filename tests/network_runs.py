"""Networks of populations run neuron by neuron, straight from the docstrings of `spikerl_deploy/network.py`."""

from __future__ import annotations

import numpy as np

from spikerl_deploy.network import INPUT, ONE, FloatNetwork, IntegerNetwork, IntegerPopulation


def run_floats(
    network: FloatNetwork, spikes: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Output [T, ...], spikes and NIR's voltages of every population, in float64."""
    given = {INPUT: spikes.reshape(len(spikes), -1).astype(np.float64), ONE: np.ones((len(spikes), 1))}
    u = {name: np.zeros(p.size) for name, p in network.populations.items()}
    v = {name: p.v_initial.copy() for name, p in network.populations.items()}
    voltages = {name: np.zeros((len(spikes), p.size)) for name, p in network.populations.items()}
    fired = {name: np.zeros((len(spikes), p.size), dtype=bool) for name, p in network.populations.items()}
    for t in range(len(spikes)):
        for name, p in network.populations.items():
            current = u[name] * p.keep_u
            for c in network.connections:
                if c.target == name and t >= c.delay:
                    source = given[c.source] if c.source in given else fired[c.source]
                    current = current + c.weight.toarray() @ source[t - c.delay]
            u[name] = current
            v[name] = v[name] * p.keep_v + current
            fired[name][t] = v[name] > p.v_threshold
            v[name] = np.where(fired[name][t], p.v_reset, v[name])
            voltages[name][t] = v[name] + p.v_offset
    shaped = {name: (len(spikes), *p.shape) for name, p in network.populations.items()}
    last = network.populations[network.output]
    output = (fired if last.spiking else voltages)[network.output].reshape(shaped[network.output])
    return (
        output,
        {name: fired[name].reshape(shape) for name, shape in shaped.items()},
        {name: voltages[name].reshape(shape) for name, shape in shaped.items()},
    )


def run_scalars(network: IntegerNetwork, spikes: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Spikes and voltages [T, n] of every population, in Python's unbounded integers, one neuron at a time."""
    steps, names = len(spikes), list(network.populations)
    fired = {name: [[0] * network.populations[name].size for _ in range(steps)] for name in names}
    volts = {name: [[0] * network.populations[name].size for _ in range(steps)] for name in names}
    u = {name: [0] * network.populations[name].size for name in names}
    v = {name: [int(x) for x in network.populations[name].v_initial] for name in names}
    weights = [(c, c.weight.toarray().tolist()) for c in network.connections]
    for t in range(steps):
        for name in names:
            for n in range(network.populations[name].size):
                synaptic = 0
                for c, rows in weights:
                    if c.target == name and t >= c.delay:
                        before = {INPUT: spikes[t - c.delay].tolist(), ONE: [1]}
                        source = before[c.source] if c.source in before else fired[c.source][t - c.delay]
                        total = sum(int(w) for w, s in zip(rows[n], source, strict=True) if s)
                        shifted = total * 2**c.weight_exp if c.weight_exp > 0 else total // 2**-c.weight_exp
                        synaptic += _bits32(shifted)
                u[name][n], volts[name][t][n], spiked = _neuron(
                    network.populations[name], n, u[name][n], v[name][n], _bits32(synaptic)
                )
                fired[name][t][n], v[name][n] = int(spiked), volts[name][t][n]
    return (
        {name: np.array(values, dtype=bool) for name, values in fired.items()},
        {name: np.array(values) for name, values in volts.items()},
    )


def _neuron(p: IntegerPopulation, n: int, u: int, v: int, synaptic: int) -> tuple[int, int, bool]:
    """Current, voltage after the reset, and whether it spiked."""
    u = _bits32(_kept(u, int(p.decay_u[n])) + _bits32(synaptic * 64))
    if u > 2**23:
        u -= 2**24
    elif u <= -(2**23):
        u += 2**24
    v = min(max(_kept(v, int(p.decay_v[n])) + u, 1 - 2**23), 2**23 - 1)
    if p.spiking and v > int(p.v_threshold[n]):
        return u, int(p.v_reset[n]), True
    return u, v, False


def _kept(state: int, decay: int) -> int:
    kept = abs(state) * (4096 - decay) // 4096
    return kept if state >= 0 else -kept


def _bits32(value: int) -> int:
    return (value + 2**31) % 2**32 - 2**31
