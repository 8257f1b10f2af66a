"""Guards the generic package names: `training`, `exporters` and `simulators` must be ours."""

import sys
from importlib.util import find_spec
from pathlib import Path

SIBLINGS = ("training", "exporters", "simulators")
CONSOLE_SCRIPT = "spikerl"
HINT = "rename that folder, run from a directory that does not hold it, or reinstall spikerl-deploy"


def check_siblings(ground_init: str) -> None:
    """As `find_misplaced`; under the console script an error is one line and a hint, not a traceback."""
    problem = find_misplaced(ground_init)
    if problem is None:
        return
    if Path(sys.argv[0]).name == CONSOLE_SCRIPT:
        print(f"Error: {problem}\nHint: {HINT}", file=sys.stderr)
        sys.exit(2)
    raise ImportError(f"spikerl: {problem}. {HINT}")


def find_misplaced(ground_init: str) -> str | None:
    """Check that the three sibling packages lie beside the ground package.

    Args:
        ground_init: path of the ground package's `__init__.py`.

    Returns:
        What is wrong: a sibling is missing, or another folder of that name comes first on `sys.path`.
    """
    root = Path(ground_init).resolve().parent.parent
    for name in SIBLINGS:
        expected = root / name
        spec = find_spec(name)
        if spec is None:
            return f"package '{name}' is missing from {root}"
        places = [Path(place).resolve() for place in spec.submodule_search_locations or []]
        if spec.origin is not None and not places:
            places = [Path(spec.origin).resolve()]
        if expected not in places:
            found = ", ".join(str(place) for place in places) or "an unknown place"
            return f"'{name}' is shadowed by {found}; expected {expected}"
    return None
