"""Returns of the five MuJoCo tasks: the curves of all training runs, and what README and docs say of them.

    python -m benchmarks.returns add out/hopper/run --task hopper --group recipe
    python -m benchmarks.returns add out/x --task hopper --group search --label "actor_lr 3e-4" --note "why it was left"
    python -m benchmarks.returns add out/y --task hopper --group ablation --label "batch norm" [--against LABEL]
    python -m benchmarks.returns remove --task hopper --group search --label "actor_lr 3e-4" [--seed 0]
    python -m benchmarks.returns free --task hopper --group recipe --seed 3 --seeds 2
    python -m benchmarks.returns list
    python -m benchmarks.returns write

Groups: `recipe` are the recipe's own runs, `mlp` those of the dense twin, with the recipe's settings but for those
of spikes, `search` what was tried to find the recipe, failed tries included, `ablation` a technique on and off: the
same task, seeds and steps, against the recipe's runs or those of another label. A run that still goes on can be added,
and added again when it has gone further. `free` asks before a long training whether its seeds can be added then: none
may be in a run that is there. `write` rewrites the tables in README.md and docs/returns.md between their markers, and
the figures, from benchmarks/results/returns.json and benchmarks/published_returns.toml alone.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks import returns_document as returns
from benchmarks.markers import between
from spikerl_deploy.errors import SpikerlError, error_lines, unknown
from spikerl_deploy.files import write_text

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- returns: begin (make returns) -->", "<!-- returns: end -->"


def add(document: dict[str, Any], entry: dict[str, Any], force: bool = False) -> tuple[dict[str, Any], str]:
    """The document with an entry added, or in the place of the same run's earlier one, and what was done in words.

    Raises:
        SpikerlError: the entry does not fit its group, or would replace another run and `force` is false.
    """
    name, seeds = returns.name_of(entry), _numbers(entry)
    if entry["group"] in ("recipe", "mlp"):
        check_recipe(entry)
    row = [run for run in document["runs"] if returns.row_of(run) == returns.row_of(entry)]
    for run in row:
        if seeds != _numbers(run) and set(seeds) & set(_numbers(run)):
            raise SpikerlError(f"{name} has a seed of {returns.name_of(run)}, which is another run",
                               f"first: python -m benchmarks.returns remove {_flags(run)}")  # fmt: skip
    earlier = [run for run in row if seeds == _numbers(run)]
    done = f"added {name}, {entry['steps_done']:,} of {entry['steps_asked']:,} steps"
    for run in earlier:
        other = _other_run(run, entry)
        if other and not force:
            raise SpikerlError(f"{name} is there already, and {other}", "replace it with --force")
        done = f"replaced {name}: {run['steps_done']:,} to {entry['steps_done']:,} steps"
    document = {**document, "runs": [run for run in document["runs"] if run not in earlier] + [entry]}
    returns.check(document, name)
    return document, done


def check_free(document: dict[str, Any], task: str, group: str, label: str, seeds: range) -> None:
    """Refuse seeds to be trained that a run of the task, group and label has already.

    Raises:
        SpikerlError: names the first of them and its run.
    """
    if not seeds:
        raise SpikerlError(f"there are no seeds from {seeds.start} to {seeds.stop - 1}", "--seeds takes 1 or more")
    for run in document["runs"]:
        both = [number for number in _numbers(run) if number in seeds]
        if both and returns.row_of(run) == (task, group, label):
            raise SpikerlError(f"seed {both[0]} is in a run that is there already: {returns.name_of(run)}",
                               f"take others, or first: python -m benchmarks.returns remove {_flags(run)}")  # fmt: skip


def remove(document: dict[str, Any], task: str, group: str, label: str, seed: int | None) -> tuple[dict[str, Any], str]:
    """The document without the runs of a task, group and label, or the one that has the seed.

    Raises:
        SpikerlError: there is no such run, or an ablation is compared with it.
    """
    gone = [run for run in document["runs"] if returns.row_of(run) == (task, group, label)]
    gone = [run for run in gone if seed is None or seed in _numbers(run)]
    if not gone:
        names = sorted(
            {f"'{run['label']}'" for run in document["runs"] if (run["task"], run["group"]) == (task, group)}
        )
        there = f"; there is: {', '.join(names)}" if any(name != "''" for name in names) else ""
        raise SpikerlError(f"no run of {task} {group} '{label}'{'' if seed is None else f' with seed {seed}'}{there}",
                           "see: python -m benchmarks.returns list")  # fmt: skip
    document = {**document, "runs": [run for run in document["runs"] if run not in gone]}
    returns.check(document, "what is left")
    return document, "\n".join(f"removed {returns.name_of(run)}" for run in gone)


def _numbers(run: dict[str, Any]) -> list[int]:
    return [seed["seed"] for seed in run["seeds"]]


def _flags(run: dict[str, Any]) -> str:
    label = f' --label "{run["label"]}"' if run["label"] else ""
    return f"--task {run['task']} --group {run['group']}{label} --seed {_numbers(run)[0]}"


def check_recipe(entry: dict[str, Any]) -> None:
    """Hold a run of group recipe or mlp against the recipe's settings, but for those of the machine and BF16.

    Those of spikes are left out where the actor is dense.

    Raises:
        SpikerlError: it has another one.
    """
    from benchmarks.returns_run import recipe_settings

    recipe = recipe_settings(entry["task"])
    wanted = returns.compared({**entry, "settings": recipe["settings"], "steps_asked": recipe["steps"],
                               "evaluation": recipe["evaluation"],
                               "machine": {**entry["machine"], "ranks": 1}})  # fmt: skip
    for name, (left, right) in returns.differing(returns.compared(entry), wanted).items():
        raise SpikerlError(f"{returns.name_of(entry)} has {name} = {left}, recipe '{entry['task']}' has {right}",
                           "add it with --group search, --label and --note, or mend the recipe")  # fmt: skip


def _other_run(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    """Why a new entry is not the old one's run gone further."""
    if new["steps_done"] < old["steps_done"]:
        return f"has gone further: {old['steps_done']} steps, this one {new['steps_done']}"
    for was, now in zip(old["seeds"], new["seeds"], strict=True):
        later = {point[0]: point for point in now["curve"]}
        for point in was["curve"]:
            if later.get(point[0]) != point:
                return f"is of another run: its evaluation at step {point[0]} is not this one's"
    return None


def rendered(root: Path, document: dict[str, Any], published: dict[str, Any]) -> dict[Path, str]:
    """Every file that `write` writes, by its path, with its text.

    Raises:
        SpikerlError: README.md or docs/returns.md is missing, or has not both markers once.
    """
    from benchmarks.returns_figure import FIGURES, figures
    from benchmarks.returns_table import docs_text, readme_text

    light, dark = figures(document, published)
    readme, docs = root / "README.md", root / "docs" / "returns.md"
    return {
        root / FIGURES[0]: light,
        root / FIGURES[1]: dark,
        docs: between(docs, BEGIN, END, docs_text(document, published)),
        readme: between(readme, BEGIN, END, readme_text(document, published)),
    }


def listed(document: dict[str, Any]) -> str:
    """A line a run."""
    lines = []
    for run in document["runs"]:
        best = ", ".join(f"{seed['maximum']:,.0f}" for seed in run["seeds"])
        steps = f"{run['steps_done']:,} of {run['steps_asked']:,} steps"
        lines.append(f"{returns.name_of(run)}: {run['status']}, {steps}, maximum {best}\n")
    return "".join(lines) or "no runs yet\n"


def main(arguments: list[str] | None = None) -> None:
    """Run one command; an error is a line and a hint on stderr, and exit code 2."""
    try:
        _run(_parser().parse_args(arguments))
    except SpikerlError as error:
        print(error_lines(error.message, error.hint), file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def _run(given: argparse.Namespace) -> None:
    document = returns.read(given.returns)
    if given.command == "list":
        print(listed(document), end="")
    elif given.command == "write":
        from benchmarks.returns_rows import read_published

        files = rendered(given.root, document, read_published(given.published))
        for path, text in files.items():
            write_text(path, text)
            print(f"wrote {path}")
    else:
        if given.task not in returns.TASKS:
            raise unknown("task", given.task, returns.TASKS)
        if given.command == "add":
            from benchmarks.returns_run import read_entry

            against = given.against if given.against is not None else "" if given.group == "ablation" else None
            entry = read_entry(given.run, given.task, given.group, given.label, given.note, against)
            document, done = add(document, entry, given.force)
        elif given.command == "free":
            check_free(document, given.task, given.group, given.label, range(given.seed, given.seed + given.seeds))
            return
        else:
            document, done = remove(document, given.task, given.group, given.label, given.seed)
        returns.write(document, given.returns)
        print(done)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.returns", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--returns", type=Path, default=returns.RETURNS, help="the results file")
    commands = parser.add_subparsers(dest="command", required=True)
    adding = commands.add_parser("add", help="add or replace a run")
    adding.add_argument("run", type=Path, help="run folder of spikerl train; of several seeds the one that has seed-*")
    removing = commands.add_parser("remove", help="remove runs")
    freeing = commands.add_parser("free", help="exit code 2 if seeds are in a run that is there already")
    for parts in (adding, removing, freeing):
        parts.add_argument("--task", required=True, help=", ".join(returns.TASKS))
        parts.add_argument("--group", required=True, choices=returns.GROUPS)
        parts.add_argument("--label", default="", help="what tells a try of the search, or an ablation, from others")
    adding.add_argument("--note", default="", help="a sentence; for a try of the search why it was left")
    adding.add_argument(
        "--against", help="label of the ablation that this one is compared with; the recipe if not given"
    )
    adding.add_argument("--force", action="store_true", help="replace an entry of another run")
    removing.add_argument("--seed", type=int, help="the run that has this seed only")
    freeing.add_argument("--seed", type=int, required=True, help="the first one")
    freeing.add_argument("--seeds", type=int, default=1, help="how many")
    commands.add_parser("list", help="a line a run")
    writing = commands.add_parser("write", help="rewrite tables and figures")
    writing.add_argument("--root", type=Path, default=ROOT, help="the project's folder")
    writing.add_argument("--published", type=Path, default=Path(__file__).parent / "published_returns.toml")
    return parser


if __name__ == "__main__":
    main()
