"""Layers laid out over a chip's cores: a first-fit packing by neurons, axons and synapse memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from spikerl_deploy.chips import Chip

RESOURCES = ("core_neurons", "core_in_axons", "core_out_axons", "core_synapse_bits")
READOUT = 1  # cores (the host's side) that an output neuron sends its spikes to


@dataclass(frozen=True)
class LayerLoad:
    """What one layer asks of cores.

    Attributes:
        neurons: n_out. sources: inputs and the always-firing neurons of the bias; one axon each to every core.
        always_on: always-firing neurons beside the layer, for the next layer's bias; they have no synapses.
        axons: (number of sources, weight bits of their synapses); the numbers add up to `sources`.
        threshold, decays: configurations that the neurons of the layer share.
    """

    neurons: int
    sources: int
    always_on: int
    axons: tuple[tuple[int, int], ...]
    threshold: float
    decays: tuple[float, float]


@dataclass(frozen=True)
class Core:
    """What lies on a core.

    Attributes:
        slices: (layer from 0, its neurons here). always_on: always-firing neurons. neurons: both together.
        thresholds, decays: different configurations that these share.
    """

    slices: tuple[tuple[int, int], ...]
    always_on: int
    neurons: int
    in_axons: int
    out_axons: int
    synapse_bits: int
    thresholds: int
    decays: int


@dataclass(frozen=True)
class Packing:
    """Cores in the order of opening, and what of them is needed.

    Attributes:
        at_least: cores that the totals of neurons, out-axons and synapse bits need, however they are laid out.
        unplaced: layer of which no neuron fits an empty core, or None.
        largest: of each resource, the most that one core holds, or that one neuron of `unplaced` asks for.
    """

    cores: tuple[Core, ...]
    at_least: int
    unplaced: int | None
    largest: dict[str, int]
    synapse_bits: int


@dataclass
class _Open:
    """A core that is being filled: neurons of each layer, and always-firing neurons beside each."""

    slices: dict[int, int] = field(default_factory=dict)
    always_on: dict[int, int] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RESOURCES, 0))


Demand = Callable[[int], dict[str, int]]
"""What so many neurons of a layer ask of one core, by resource."""


def pack(loads: Sequence[LayerLoad], chip: Chip) -> Packing:
    """First fit, from the output layer to the input layer.

    A layer's neurons go to the first opened core that has room, as many as fit, and on to the next; a new core is
    opened where none has room. A slice of a layer takes an in-axon for each of the layer's sources, and dense
    synapse memory (zeros included); a neuron takes an out-axon for each core that holds a slice of the next layer,
    which is why the order is from the last layer. Limits that the chip does not state do not bind.
    """
    cores: list[_Open] = []
    unplaced, wanted, targets = None, dict.fromkeys(RESOURCES, 0), READOUT
    for index in reversed(range(len(loads))):
        load = loads[index]
        synapses, none = _demand(load.sources, load.axons, chip, targets), _demand(0, (), chip, targets)
        for count, demand, always_on in ((load.neurons, synapses, False), (load.always_on, none, True)):
            if not _place(cores, chip, index, count, demand, always_on):
                unplaced = index if unplaced is None else unplaced
                wanted = {name: max(wanted[name], amount) for name, amount in demand(1).items()}
        targets = max(sum(index in core.slices for core in cores), 1)
    totals = {name: sum(core.used[name] for core in cores) for name in RESOURCES}
    bounds = [1]
    for name in ("core_neurons", "core_synapse_bits"):  # axons depend on the layout
        limit = chip.number(name)
        bounds += [] if limit is None else [-(-totals[name] // limit)]
    return Packing(
        cores=tuple(_core(core, loads) for core in cores),
        at_least=max(bounds),
        unplaced=unplaced,
        largest={name: max([wanted[name], *(core.used[name] for core in cores)]) for name in RESOURCES},
        synapse_bits=totals["core_synapse_bits"],
    )


def _demand(sources: int, axons: Sequence[tuple[int, int]], chip: Chip, targets: int) -> Demand:
    memory = chip.synapse_memory

    def of(neurons: int) -> dict[str, int]:
        bits = 0 if memory is None else sum(count * memory.axon_bits(neurons, width) for count, width in axons)
        return dict(zip(RESOURCES, (neurons, sources, neurons * targets, bits), strict=True))

    return of


def _place(cores: list[_Open], chip: Chip, layer: int, count: int, demand: Demand, always_on: bool) -> bool:
    """Put neurons of a layer on cores, opening more as needed; False where not even one fits an empty core."""
    index = 0
    while count:
        if index == len(cores):
            cores.append(_Open())
        core = cores[index]
        taken = _most(core, chip, count, demand)
        if taken:
            for name, amount in demand(taken).items():
                core.used[name] += amount
            (core.always_on if always_on else core.slices)[layer] = taken
            count -= taken
        elif not core.used["core_neurons"]:
            cores.pop()
            return False
        index += 1
    return True


def _most(core: _Open, chip: Chip, count: int, demand: Demand) -> int:
    """The most neurons, up to count, that a core still has room for; every resource grows with the number."""

    def fits(neurons: int) -> bool:
        return all(
            (limit := chip.number(name)) is None or core.used[name] + amount <= limit
            for name, amount in demand(neurons).items()
        )

    low, high = 0, count
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _core(core: _Open, loads: Sequence[LayerLoad]) -> Core:
    here = [loads[index] for index in {*core.slices, *core.always_on}]
    return Core(
        slices=tuple(sorted(core.slices.items())),
        always_on=sum(core.always_on.values()),
        neurons=core.used["core_neurons"],
        in_axons=core.used["core_in_axons"],
        out_axons=core.used["core_out_axons"],
        synapse_bits=core.used["core_synapse_bits"],
        thresholds=len({load.threshold for load in here}),
        decays=len({load.decays for load in here}),
    )
