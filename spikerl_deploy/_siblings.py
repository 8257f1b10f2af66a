"""Guards the generic package names: `training`, `exporters` and `simulators` must be ours."""

from importlib.util import find_spec
from pathlib import Path

SIBLINGS = ("training", "exporters", "simulators")


def check_siblings(ground_init: str) -> None:
    """Check that the three sibling packages lie beside the ground package.

    Args:
        ground_init: path of the ground package's `__init__.py`.

    Raises:
        ImportError: a sibling is missing, or another folder of that name comes first on `sys.path`.
    """
    root = Path(ground_init).resolve().parent.parent
    for name in SIBLINGS:
        expected = root / name
        spec = find_spec(name)
        if spec is None:
            raise ImportError(f"spikerl: package '{name}' is missing from {root}; reinstall spikerl-deploy")
        places = [Path(place).resolve() for place in spec.submodule_search_locations or []]
        if spec.origin is not None and not places:
            places = [Path(spec.origin).resolve()]
        if expected not in places:
            found = ", ".join(str(place) for place in places) or "an unknown place"
            raise ImportError(
                f"spikerl: '{name}' is shadowed by {found}; expected {expected}. "
                "Rename that folder, or run from a directory that does not hold it"
            )
