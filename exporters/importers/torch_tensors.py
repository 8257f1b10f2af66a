"""Named tensors out of a torch file, as NumPy arrays, without executing anything in it."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spikerl_deploy.errors import SpikerlError

if TYPE_CHECKING:
    import torch

BYTES_MAX = 1 << 28  # a policy of 4096-4096 neurons has a quarter of it
HINT = "give the .pt file that torch.save(actor.state_dict(), ...) wrote"
# What torch.load can raise on a file that is truncated, damaged, foreign or hostile.
_READ_ERRORS = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, OSError, MemoryError, AssertionError),
    *(ValueError, KeyError, IndexError, TypeError, AttributeError, NotImplementedError, OverflowError),
)


def read_state_dict(
    path: Path, wrappers: Sequence[str], prefix: str, check_keys: Callable[[Set[str]], None]
) -> dict[str, NDArray[np.float32]]:
    """Tensors of a state dict by key, in float32.

    Args:
        wrappers: keys under one of which the state dict may lie.
        prefix: taken off the keys where all of them carry it.
        check_keys: called with the keys before any tensor is looked at; raises where they are not the expected ones.

    Raises:
        SpikerlError: no such file, not a state dict, a tensor that is sparse, not floating or not finite, or tensors
            that repeat their elements or share them.
    """
    document = _load(path)
    inner = [key for key in wrappers if isinstance(document.get(key), dict)]
    if len(inner) > 1:
        raise SpikerlError(f"'{path}' holds several state dicts, under {', '.join(inner)}", HINT)
    state = document[inner[0]] if inner else document
    if not state or not all(isinstance(key, str) for key in state):
        raise SpikerlError(f"'{path}' holds no tensors by name", HINT)
    if all(key.startswith(prefix) for key in state):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    check_keys(state.keys())
    left = path.stat().st_size
    for key, value in state.items():
        name = f"'{path}': '{key}'"
        _check_tensor(name, value)
        left -= value.numel() * value.element_size()
        if left < 0:  # a view that repeats its elements, or tensors that share them
            raise SpikerlError(f"{name} and those before it have more elements than the file holds", HINT)
    return {key: _array(f"'{path}': '{key}'", value) for key, value in state.items()}


def _load(path: Path) -> dict[Any, Any]:
    import torch

    if not path.is_file():
        raise SpikerlError(f"no checkpoint at '{path}'", HINT)
    if path.stat().st_size > BYTES_MAX:
        raise SpikerlError(f"'{path}' is larger than {BYTES_MAX >> 20} MiB, too large for a policy", HINT)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > path.stat().st_size:  # torch stores its entries; only a bomb gains by compression
                raise SpikerlError(f"'{path}' unpacks to {unpacked} bytes, more than it has", HINT)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            document = torch.load(path, map_location="cpu", weights_only=True)
    except _READ_ERRORS as error:
        # not torch's own words: they advise weights_only=False, which would run what the file holds
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"it refers to '{named[1]}', which was not run" if named else "it is truncated, or holds other things"
        raise SpikerlError(f"'{path}' is not a torch file of plain tensors: {what}", HINT) from error
    if not isinstance(document, dict):
        raise SpikerlError(f"'{path}' holds a {type(document).__name__}, a state dict was expected", HINT)
    return document


def _check_tensor(name: str, value: Any) -> None:
    import torch

    if not isinstance(value, torch.Tensor):
        raise SpikerlError(f"{name} is a {type(value).__name__}, a tensor was expected", HINT)
    precisions = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    if value.layout is not torch.strided or value.dtype not in precisions or value.is_meta:
        raise SpikerlError(
            f"{name} is a {value.dtype} tensor in {value.layout} layout, dense floats were expected", HINT
        )


def _array(name: str, tensor: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().float().resolve_neg().numpy()
    if not np.isfinite(array).all():
        raise SpikerlError(f"{name} holds values that are not finite", "training diverged; import another checkpoint")
    return array
