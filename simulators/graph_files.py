"""Files of `spikerl run`: input spikes in, the output and what was recorded out."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.protocol import GraphRecord
from spikerl_deploy.errors import MAX_LISTED, SpikerlError
from spikerl_deploy.files import atomic_path
from spikerl_deploy.nir_file import one_line

INPUT_HINT = "give an .npz file with an array 'spikes' [T, ...input shape] of booleans or numbers"
INPUT_BYTES_MAX = 1 << 31  # of the unpacked input
# What reading a file that is broken or hostile can raise: false sizes, ciphers, pickles, odd compression.
READ_ERRORS = (
    *(OSError, ValueError, EOFError, AttributeError, TypeError, KeyError, MemoryError, OverflowError, RuntimeError),
    *(NotImplementedError, SyntaxError, zipfile.BadZipFile, zlib.error),
)


def read_spikes(path: Path) -> NDArray[Any]:
    """The array `spikes` of an .npz file, [T, ...]: booleans, integers or floats, finite, T at least 1.

    Raises:
        SpikerlError: no such file or array, another type, values that are not finite, or more than 2 GiB.
    """
    if not path.is_file():
        raise SpikerlError(f"no input file at '{path}'", INPUT_HINT)
    try:
        spikes = _read(path)
    except READ_ERRORS as error:
        raise SpikerlError(f"cannot read input '{path}': {one_line(error)}", INPUT_HINT) from error
    if spikes.dtype.kind not in "biuf":
        raise SpikerlError(f"'{path}': spikes are {spikes.dtype}, booleans or real numbers were expected", INPUT_HINT)
    if spikes.ndim == 0 or len(spikes) == 0:
        raise SpikerlError(f"'{path}': spikes of shape {spikes.shape} hold no time step", INPUT_HINT)
    with np.errstate(over="ignore"):
        finite = spikes.dtype.kind != "f" or np.isfinite(spikes.astype(np.float32))
    if not np.all(finite):
        where = tuple(int(index) for index in np.argwhere(~finite)[0])
        raise SpikerlError(
            f"'{path}': spikes hold {spikes[where]} at {list(where)}, which is not finite in float32", INPUT_HINT
        )
    return spikes


def _read(path: Path) -> NDArray[Any]:
    with zipfile.ZipFile(path) as archive:
        if "spikes.npy" not in archive.namelist():
            names = [name.removesuffix(".npy") for name in archive.namelist()[:MAX_LISTED]]
            raise ValueError(f"it holds {', '.join(names) or 'nothing'}, and no 'spikes' array")
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > INPUT_BYTES_MAX:
        raise ValueError(f"it unpacks to {unpacked} bytes, at most {INPUT_BYTES_MAX} are read")
    with np.load(path, allow_pickle=False) as file:
        return np.asarray(file["spikes.npy"])  # NumPy would take a member `spikes` for the plain name


def write_record(record: GraphRecord, path: Path, force: bool = False) -> None:
    """Write `output`, `NODE.spikes` and `NODE.v` to a compressed .npz file, atomically.

    Raises:
        SpikerlError: the file exists and `force` is false, or cannot be written.
    """
    arrays = {"output": record.output}
    arrays |= {f"{name}.spikes": raster for name, raster in record.spikes.items()}
    arrays |= {f"{name}.v": voltage for name, voltage in record.voltages.items()}
    with atomic_path(path, force) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]  # a name could be `allow_pickle`, never here
