"""Messages between client and worker: a JSON header and raw arrays. Nothing in them can execute code.

Frame: 4 bytes length of the header, 8 bytes length of the payload, CRC-32 of both together, CRC-32 of what was
before it, header, payload. The header holds the fields of the message and, under `arrays`, [name, dtype, shape] of
each array in the payload, in order.
"""

from __future__ import annotations

import json
import socket
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

PROTOCOL_VERSION = 2
_PREFIX = struct.Struct("!IQI")
_CHECK = struct.Struct("!I")
_MAX_HEADER = 1 << 24
_MAX_PAYLOAD = 1 << 32
_DTYPES = ("|b1", "<i2", "<i4", "<i8", "<f4", "<f8")

Arrays = dict[str, NDArray[Any]]


class WireError(Exception):
    """The other side sent something that is no message."""


class WireClosed(WireError):
    """The other side closed the connection."""


def send_message(connection: socket.socket, fields: dict[str, Any], arrays: Arrays | None = None) -> None:
    """Send one message.

    Raises:
        WireError: an array of a type that is not exchanged, or more than a message may hold; nothing was sent.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in (arrays or {}).items()}
    table = [[name, _checked_type(name, array.dtype.str), list(array.shape)] for name, array in arrays.items()]
    header = json.dumps(fields | {"arrays": table}).encode()
    size = sum(array.nbytes for array in arrays.values())
    if len(header) > _MAX_HEADER or size > _MAX_PAYLOAD:
        raise WireError(f"a message of {len(header)} + {size} bytes is out of bounds")
    payload = b"".join(array.tobytes() for array in arrays.values())
    prefix = _PREFIX.pack(len(header), len(payload), zlib.crc32(payload, zlib.crc32(header)))
    connection.sendall(prefix + _CHECK.pack(zlib.crc32(prefix)) + header + payload)


def receive_message(connection: socket.socket) -> tuple[dict[str, Any], Arrays]:
    """Receive one message.

    Raises:
        WireClosed: end of stream. WireError: a malformed or damaged frame.
        TimeoutError: the socket's time limit passed.
    """
    prefix = _receive_exactly(connection, _PREFIX.size)
    if _CHECK.unpack(_receive_exactly(connection, _CHECK.size))[0] != zlib.crc32(prefix):
        raise WireError("a frame's start is damaged")
    header_length, payload_length, checksum = _PREFIX.unpack(prefix)
    if header_length > _MAX_HEADER or payload_length > _MAX_PAYLOAD:
        raise WireError(f"frame of {header_length} + {payload_length} bytes is out of bounds")
    header = _receive_exactly(connection, header_length)
    payload = _receive_exactly(connection, payload_length)
    if zlib.crc32(payload, zlib.crc32(header)) != checksum:
        raise WireError("a message is damaged")
    try:
        fields = json.loads(header)
        arrays, offset = {}, 0
        for name, dtype, shape in fields.pop("arrays"):
            _checked_type(name, dtype)
            count = int(np.prod(shape, dtype=np.int64))
            arrays[name] = np.frombuffer(payload, dtype, count, offset).reshape(shape)
            offset += arrays[name].nbytes
    except (ValueError, KeyError, TypeError) as error:
        raise WireError(f"malformed message: {error}") from error
    return fields, arrays


def _checked_type(name: str, dtype: str) -> str:
    if dtype not in _DTYPES:
        raise WireError(f"array '{name}' has type {dtype}, which is not exchanged")
    return dtype


def _receive_exactly(connection: socket.socket, length: int) -> bytes:
    buffer = bytearray(length)
    view, filled = memoryview(buffer), 0
    while filled < length:
        received = connection.recv_into(view[filled:])
        if received == 0:
            raise WireClosed("the connection was closed")
        filled += received
    return bytes(buffer)
