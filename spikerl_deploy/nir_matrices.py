"""NIR's linear nodes as sparse matrices over flat inputs and outputs, bounded in size."""

from __future__ import annotations

import math

import nir
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, diags_array, eye_array

from spikerl_deploy.nir_shapes import Floats, Shape, Window, parameter, refused, window

NONZEROS_MAX = 50_000_000  # of one node's matrix: half a gigabyte and more


def linear_matrix(name: str, node: nir.NIRNode, given: Shape, shape: Shape) -> tuple[csr_array, Floats | None]:
    """Matrix [n_out, n_in] and bias [n_out], if any, of a node without state; a Delay is not one.

    Args:
        given, shape: of the node's input and output.

    Raises:
        SpikerlError: the matrix has more than `NONZEROS_MAX` values; names the node.
    """
    if isinstance(node, nir.Affine | nir.Linear):
        matrix = _block_matrix(name, parameter(name, node, "weight"))
    elif isinstance(node, nir.Scale):
        matrix = csr_array(diags_array(parameter(name, node, "scale", given).ravel()))
    elif isinstance(node, nir.Flatten):
        matrix = csr_array(eye_array(math.prod(given)))
    else:
        matrix = _window_matrix(name, node, window(name, node, given), given, shape)
    if isinstance(node, nir.Affine):
        return matrix, parameter(name, node, "bias", shape).ravel()
    if isinstance(node, nir.Conv1d | nir.Conv2d):
        bias = parameter(name, node, "bias", shape[:1])
        return matrix, np.repeat(bias, math.prod(shape[1:]))
    return matrix, None


def product(name: str, left: csr_array, right: csr_array) -> csr_array:
    """left @ right.

    Raises:
        SpikerlError: it can have more than `NONZEROS_MAX` values; names the node.
    """
    terms = int(np.bincount(left.indices, minlength=left.shape[1]) @ np.diff(right.indptr).astype(np.int64))
    check_nonzeros(name, min(terms, left.shape[0] * right.shape[1]))
    result = csr_array(left @ right)
    result.eliminate_zeros()
    return result


def check_nonzeros(name: str, count: int) -> None:
    """Refuse a matrix of so many values.

    Raises:
        SpikerlError: more than `NONZEROS_MAX`; names the node.
    """
    if count > NONZEROS_MAX:
        raise refused(
            name,
            f"takes up to {count:.3g} synapses, at most {NONZEROS_MAX:.3g} are laid out",
            "run it without laying it out: --backend torch",
        )


def _block_matrix(name: str, weight: Floats) -> csr_array:
    """Weights [..., n_out, n_in] as a block for each of the leading axes."""
    n_out, n_in = weight.shape[-2:]
    check_nonzeros(name, weight.size)
    blocks = weight.reshape(-1, n_out, n_in)
    block, row, column = np.nonzero(blocks)
    size = (len(blocks) * n_out, len(blocks) * n_in)
    return csr_array((blocks[block, row, column], (block * n_out + row, block * n_in + column)), shape=size)


def _window_matrix(name: str, node: nir.NIRNode, geometry: Window, given: Shape, shape: Shape) -> csr_array:
    """A convolution or pooling: weights [C_out, C_in, kernel] wherever a place in the kernel reads an input."""
    if isinstance(node, nir.Conv1d | nir.Conv2d):
        weight = parameter(name, node, "weight")
    else:
        area = 1 if isinstance(node, nir.SumPool2d) else math.prod(geometry.kernel)
        weight = np.broadcast_to(np.float64(1 / area), (given[0], 1, *geometry.kernel))
    places_in, places_out = math.prod(given[1:]), math.prod(shape[1:])
    check_nonzeros(name, weight.size * places_out)
    axes = [
        _places(given[1 + i], shape[1 + i], geometry.stride[i], geometry.dilation[i], geometry.padding[i][0], kernel)
        for i, kernel in enumerate(geometry.kernel)
    ]
    place, out, into = (np.zeros(1, dtype=np.int32) for _ in range(3))
    for (kernel, reached, read), n_kernel, size_in, size_out in zip(
        axes, geometry.kernel, given[1:], shape[1:], strict=True
    ):
        place = (place[:, None] * np.int32(n_kernel) + kernel).ravel()
        out = (out[:, None] * np.int32(size_out) + reached).ravel()
        into = (into[:, None] * np.int32(size_in) + read).ravel()
    channel, source = (index.astype(np.int32) for index in np.indices(weight.shape[:2], sparse=True))
    first = channel // (shape[0] // geometry.groups) * weight.shape[1] + source
    values = weight.reshape(*weight.shape[:2], -1)[:, :, place]
    rows = np.broadcast_to((channel * np.int32(places_out))[:, :, None] + out, values.shape)
    columns = (first * np.int32(places_in))[:, :, None] + into
    size = (math.prod(shape), math.prod(given))
    matrix = csr_array(coo_array((values.ravel(), (rows.ravel(), columns.ravel())), shape=size))
    matrix.eliminate_zeros()
    return matrix


def _places(size_in: int, size_out: int, stride: int, dilation: int, padding: int, kernel: int) -> NDArray[np.int32]:
    """Along an axis, [3, n]: place in the kernel, an output that reads an input there and not padding, and which."""
    places, out = np.arange(kernel)[:, None], np.arange(size_out)
    read = out * stride - padding + places * dilation
    place, reached = np.nonzero((read >= 0) & (read < size_in))
    return np.stack([place, reached, read[place, reached]]).astype(np.int32)
