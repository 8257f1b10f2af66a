"""The tables and texts of a policy's card: returns, training, quantization, identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spikerl_deploy.report.table import Cell, Column, Table, number, percent, span

LAST = 10  # evaluations that `last_ten_mean` is over, if there are as many
BACKENDS = ("torch", "fixed", "lava")
METHODS = {"rounding": "rounding to the nearest integer", "calibration": "calibration on recorded observations"}


def facts_table(title: str, rows: Sequence[tuple[str, str]], note: str = "") -> Table:
    """Names and values, a row each."""
    return Table(title, (Column("what", text=True), Column("value", text=True)), tuple(rows), note)


def overview_table(cards: Sequence[Mapping[str, Any]]) -> Table:
    """One row a policy."""
    columns = (
        Column("name", text=True),
        Column("task", text=True),
        Column("neurons"),
        Column("bits"),
        Column("float return"),
        Column("on lava"),
        Column("retention", text=True),
        Column("SynOps"),
        Column("size", "kB"),
        Column("training", text=True),
    )
    rows: list[tuple[Cell, ...]] = []
    for card in cards:
        policy, evaluation, training = card["policy"], card["evaluation"], card["training"]
        steps, among = f"{training['steps_done']:,} steps", training["selection"]["of_seeds"]
        steps = steps if training["finished"] else f"unfinished, {steps} of {training['steps_asked']:,}"
        rows.append(
            (
                card["name"],
                card["environment"]["id"],
                policy["neurons"],
                policy["bits"],
                evaluation["backends"]["torch"]["mean_return"],
                evaluation["backends"]["lava"]["mean_return"],
                retention_text(evaluation["comparisons"]["lava"]),
                f"{card['workload']['per_inference']['synaptic_operations']:,.0f}",
                f"{policy['bytes'] / 1e3:,.0f}",
                f"{steps}, best of {among} seeds" if among > 1 else steps,
            )
        )
    counts = {len(card["evaluation"]["seeds"]) for card in cards}
    seeds = " or ".join(map(str, sorted(counts)))
    note = (
        f"Returns: means of {seeds} episodes, the same seeds for both. retention: return on lava / float return, "
        "95 % interval. SynOps: synaptic operations of an inference, a mean."
    )
    if any(card["training"]["selection"]["of_seeds"] > 1 for card in cards):
        note += " Best of several seeds: another seed is expected to return less."
    return Table("Shipped policies", columns, tuple(rows), note)


def retention_text(comparison: Mapping[str, Any]) -> str:
    """Retention and its interval in percent."""
    if comparison["retention"] is None:
        return "undefined"
    interval = comparison["retention_interval"]
    within = f" [{interval[0] * 100:.1f}, {interval[1] * 100:.1f}]" if interval else ""
    return f"{comparison['retention'] * 100:.1f} %{within}"


def interval_text(interval: Sequence[float] | None) -> str | None:
    """An interval of returns."""
    return span(interval[0], interval[1], 4) if interval else None


def backends_table(card: Mapping[str, Any]) -> Table:
    """Returns of each backend."""
    columns = (
        Column("backend", text=True),
        Column("runs", text=True),
        Column("mean return"),
        Column("std"),
        Column("interval of the mean", text=True),
    )
    rows = []
    for name in BACKENDS:
        entry = card["evaluation"]["backends"][name]
        interval = interval_text(entry["return_interval"])
        rows.append((name, entry["runs"], entry["mean_return"], entry["std_return"], interval))
    return Table("Mean returns", columns, tuple(rows))


def retention_table(card: Mapping[str, Any]) -> Table:
    """What the integers keep of the float policy's return."""
    columns = (
        Column("backend", text=True),
        Column("retention", text=True),
        Column("mean difference"),
        Column("interval of the difference", text=True),
    )
    rows = tuple(
        (name, retention_text(entry), entry["mean_difference"], interval_text(entry["difference_interval"]))
        for name, entry in card["evaluation"]["comparisons"].items()
    )
    return Table("Against the float policy on torch, paired by seed", columns, rows)


def seeds_table(card: Mapping[str, Any]) -> Table:
    """Return of every seed."""
    backends = card["evaluation"]["backends"]
    columns = (Column("seed"), *(Column(name) for name in BACKENDS))
    values = zip(*(backends[name]["returns"] for name in BACKENDS), strict=True)
    rows = tuple(
        (seed, *(f"{value:,.2f}" for value in row))
        for seed, row in zip(card["evaluation"]["seeds"], values, strict=True)
    )
    return Table("Return of each seed", columns, rows)


def training_table(card: Mapping[str, Any]) -> Table:
    """How it was trained, and how the checkpoint was chosen."""
    training = card["training"]
    selection, checkpoint = training["selection"], training["checkpoint"]
    last = selection["first_seed"] + selection["episodes"] - 1
    several = f" of {training['seeds']} seeds together" if training["seeds"] > 1 else ""
    among = f", and among {selection['of_seeds']} seeds of the recipe" if selection["of_seeds"] > 1 else ""
    asked, done = training["steps_asked"], training["steps_done"]
    how = f"ended by {training['stopped']}" if training["finished"] else "unfinished"
    rows = [
        ("recipe", training["recipe"]),
        ("seed", str(training["seed"])),
        ("environment steps", f"{done:,} of {asked:,}; {how}"),
        ("checkpoint", f"{checkpoint['file']}, step {checkpoint['step']:,}, {checkpoint['updates']:,} updates"),
        (
            "chosen by",
            f"the largest of {selection['evaluations']} evaluations: {number(selection['mean_return'])}, mean of "
            f"{selection['episodes']} episodes, seeds {selection['first_seed']} to {last}{among}; a "
            "maximum is biased upward",
        ),
        ("final evaluation", number(training["final_return"])),
        (f"mean of the last {min(LAST, selection['evaluations'])} evaluations", number(training["last_ten_mean"])),
        ("time", f"{number(float(training['seconds']))} s{several}"),
        ("energy", _energy(training, several)),
        ("carbon", _carbon(training, several)),
        ("processor", training["machine"].get("processor", "not recorded")),
    ]
    # cards of before runs recorded threads have none; ranks are told where there were several
    rows += [(name, training["machine"][name]) for name in ("threads", "ranks") if name in training["machine"]]
    return facts_table("Run", rows)


def _energy(training: Mapping[str, Any], several: str) -> str:
    energy = training["energy"]
    if energy is None:
        return "not recorded" if training["finished"] else "not recorded before the run ends"
    return f"{number(energy['joule'] / 1e3)} kJ{several}, the whole machine's, {energy['kind']}, {energy['source']}"


def _carbon(training: Mapping[str, Any], several: str) -> str:
    carbon = training["carbon"]
    if carbon is None:
        return "not recorded"
    intensity = carbon["intensity"]
    return (
        f"{number(carbon['kg_co2eq'] * 1e3)} g CO2eq{several}, {carbon['kind']}: {number(intensity['value'])} "
        f"{intensity['unit']}, {intensity['source']}"
    )


def settings_text(card: Mapping[str, Any]) -> tuple[str, ...]:
    """What differs from the defaults and from the recipe."""
    training = card["training"]
    return (
        f"settings that differ from the defaults: {settings_words(training['settings'])}",
        f"settings that differ from the recipe: {settings_words(training['beyond_recipe'])}",
    )


def settings_words(settings: Mapping[str, Any]) -> str:
    """Settings and their values, or that there are none."""
    return ", ".join(f"{name} = {value}" for name, value in settings.items()) or "none"


def quantization_text(card: Mapping[str, Any]) -> tuple[str, ...]:
    """Bits, method, and how the method was chosen."""
    quantization = card["quantization"]
    calibration = quantization["calibration"]
    on = f", seeds from {calibration['first_seed']} on" if calibration is not None else ""
    what = f"{quantization['bits']}-bit weights by {METHODS[quantization['method']]}{on}."
    selection = quantization["selection"]
    if selection is None:
        return (f"{what} The method was given, not chosen.",)
    seeds = selection["seeds"]
    kept = "; ".join(f"{one['method']} {_kept(one)}" for one in selection["candidates"])
    return (
        f"{what} Chosen by what each method keeps of the float return on {selection['backend']}, seeds {seeds[0]} to "
        f"{seeds[-1]}, none of which is reported above: {kept}.",
    )


def _kept(candidate: Mapping[str, Any]) -> str:
    if candidate["retention"] is not None:
        return percent(candidate["retention"], 4)
    return f"a mean difference of {number(candidate['mean_difference'])}"


def identity_table(card: Mapping[str, Any]) -> Table:
    """Hashes, spaces, versions."""
    policy, environment, training, made = (card[key] for key in ("policy", "environment", "training", "made"))
    control = environment["control_step_s"]
    rows = [
        ("file", f"{policy['file']}, {policy['bytes']:,} bytes"),
        ("sha256 of the file", policy["sha256"]),
        ("sha256 of what it deploys", f"{policy['content_sha256']}; whatever made it, and with float weights or not"),
        ("sha256 of the checkpoint", training["checkpoint"]["sha256"]),
        ("float weights in the file", "yes" if policy["float_weights"] else "no"),
        ("input coding", policy["coding"]),
        ("synapses that are not zero", f"{policy['synapses']:,}"),
        ("observations", str(environment["observations"])),
        ("actions", f"{environment['actions']}, {_bounds(environment)}"),
        ("control step", "unknown" if control is None else f"{control:g} s"),
        ("trained with", _versions(training["versions"])),
        ("published", f"{made['created']}, with {_versions(made['versions'])}"),
        ("licence", card["licence"]),
    ]
    return facts_table("Identity", rows)


def _bounds(environment: Mapping[str, Any]) -> str:
    pairs = dict.fromkeys(zip(environment["action_low"], environment["action_high"], strict=True))
    return " or ".join(f"{low:g} to {high:g}" for low, high in pairs)


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items()) or "unknown versions"
