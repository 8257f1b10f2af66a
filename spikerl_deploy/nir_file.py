"""NIR files: written small, and read although they may be broken, foreign or hostile: checked before unpacking."""

from __future__ import annotations

import io
import math
from pathlib import Path

import h5py
import nir
import numpy as np

from spikerl_deploy.errors import SpikerlError

# What reading a file that is broken, foreign or hostile can raise, from h5py, nir's own checks and ours.
READ_ERRORS = (
    *(OSError, KeyError, ValueError, TypeError, AttributeError, AssertionError, IndexError, RuntimeError, MemoryError),
)
BYTES_MAX = 1 << 30  # unpacked datasets of one file; a core of 4096-4096-4096 neurons has an eighth of it
VALUES_MAX = 1 << 28  # of them, however narrow: they become floats
EXPANSION_MAX = 1100  # unpacked bytes to one of the file; deflate's best is 1030
STRINGS_MAX = 1 << 14  # node types, ends of edges and metadata of one file
SMALL = 4096  # bytes; the index of a compressed array takes about half of them
CHUNK_MAX = 1 << 24  # bytes of an array that is compressed as one


def write_graph(path: Path, graph: nir.NIRGraph) -> None:
    """Write what `nir.write` writes, a sixth to a quarter smaller: large arrays byte plane by byte plane (HDF5's
    shuffle, which NIR does not offer) and as one chunk, small ones as they are."""
    plain = io.BytesIO()
    nir.write(plain, graph, compression_opts=1)
    with h5py.File(plain, "r") as source, h5py.File(path, "w") as target:
        _copy_small(source, target)


def _copy_small(source: h5py.Group, target: h5py.Group) -> None:
    for name, item in source.items():
        if isinstance(item, h5py.Group):
            _copy_small(item, target.create_group(name))
        elif item.dtype.hasobject or item.nbytes <= SMALL:
            target.create_dataset(name, data=item[()], dtype=item.dtype)
        else:
            chunks = item.shape if item.nbytes <= CHUNK_MAX else True
            target.create_dataset(name, data=item[()], chunks=chunks, shuffle=True, compression="gzip",
                                  compression_opts=6)  # fmt: skip


def read_graph(path: Path, hint: str) -> nir.NIRGraph:
    """The graph in a NIR file, which was checked before any of its arrays is unpacked.

    Raises:
        SpikerlError: with this hint: the file is broken or holds no graph, unpacks to more than `BYTES_MAX`,
            `VALUES_MAX` or `EXPANSION_MAX` times its size, or refers to another file; names the dataset.
    """
    try:
        try:
            _check_contents(path)
        except _Refused as error:
            raise SpikerlError(f"'{path}': {error}", hint) from error
        graph = nir.read(path)
    except READ_ERRORS as error:
        raise SpikerlError(f"'{path}' is not a NIR file that can be read: {one_line(error)}", hint) from error
    if not isinstance(graph, nir.NIRGraph):
        raise SpikerlError(f"'{path}' holds a {type(graph).__name__}, a NIR graph was expected", hint)
    return graph


def one_line(error: Exception) -> str:
    """What an error of another library says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


class _Refused(Exception):
    """A dataset that no NIR file needs and that is not read."""


def _check_contents(path: Path) -> None:
    """Walk what `nir.read` would read: sizes, and whether all of it lies in this file and there once."""
    size = path.stat().st_size
    limit = min(BYTES_MAX, EXPANSION_MAX * size)
    unpacked = values = strings = text = 0
    met: set[int] = set()
    with h5py.File(path, "r") as file:
        pending: list[tuple[h5py.Group, bytes, str]] = [(file, b"node", "/node")]
        while pending:
            group, key, name = pending.pop()
            if group.id.links.get_info(key).type != h5py.h5l.TYPE_HARD:  # h5py's own `get` would follow it
                raise _Refused(f"{name!r} is a link to elsewhere, which is not followed")
            item = group[key]
            address = h5py.h5o.get_info(item.id).addr
            if address in met:  # a loop, or data that counts once in the file and many times in memory
                raise _Refused(f"{name!r} is the same object as another of the file")
            met.add(address)
            if isinstance(item, h5py.Group):
                pending += [(item, child, f"{name}/{child.decode(errors='replace')}") for child in item.id]
            elif isinstance(item, h5py.Dataset):
                elements, itemsize, is_text = _layout(name, item)
                values, unpacked = values + elements, unpacked + elements * itemsize
                if values > VALUES_MAX or unpacked > limit:
                    raise _Refused(
                        f"{name!r} and what was before it unpack to {values} values of {unpacked} bytes, "
                        f"at most {VALUES_MAX} values and {limit} bytes are read"
                    )
                strings += elements if is_text else 0
                if strings > STRINGS_MAX:
                    raise _Refused(
                        f"{name!r} and what was before it hold {strings} strings, at most {STRINGS_MAX} are read"
                    )
                for index in np.ndindex(item.shape) if is_text else ():  # one by one: they may share their bytes
                    text += len(item[index])
                    if text > size:
                        raise _Refused(f"{name!r} holds more text than the file")


def _layout(name: str, dataset: h5py.Dataset) -> tuple[int, int, bool]:
    """Elements that reading a dataset unpacks, bytes of each, and whether they are strings of any length."""
    created = dataset.id.get_create_plist()
    if created.get_layout() == h5py.h5d.VIRTUAL or created.get_external_count():
        raise _Refused(f"{name!r} keeps its data in another file, which is not read")
    is_text = h5py.check_string_dtype(dataset.dtype) is not None and dataset.dtype.hasobject
    if dataset.dtype.hasobject and not is_text:
        raise _Refused(f"{name!r} holds references or lists, numbers or text were expected")
    if dataset.shape is None:
        return 0, 0, False
    chunk = dataset.chunks or (1,) * dataset.ndim  # unpacked whole, even where it exceeds the dataset
    elements = math.prod(max(pair) for pair in zip(dataset.shape, chunk, strict=True))
    return elements, dataset.id.get_type().get_size(), is_text
