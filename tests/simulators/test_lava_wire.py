"""Messages between client and worker, whole and broken."""

from __future__ import annotations

import json
import socket
import struct

import numpy as np
import pytest

from simulators.lava.wire import WireError, receive_message, send_message


@pytest.fixture
def pair():  # type: ignore[no-untyped-def]
    a, b = socket.socketpair()
    a.settimeout(2)
    b.settimeout(2)
    yield a, b
    a.close()
    b.close()


def test_fields_and_arrays_arrive_as_sent(pair: tuple[socket.socket, socket.socket]) -> None:
    arrays = {"spikes": np.random.default_rng(0).random((2, 5, 7)) < 0.5, "w": np.arange(-6, 6, dtype=np.int32)[::2]}
    send_message(pair[0], {"op": "x", "n": 3}, arrays)
    fields, got = receive_message(pair[1])
    assert fields == {"op": "x", "n": 3}
    for name, array in arrays.items():
        np.testing.assert_array_equal(got[name], array)
        assert got[name].dtype == array.dtype


def frame(header: bytes, payload: bytes = b"") -> bytes:
    return struct.pack("!IQ", len(header), len(payload)) + header + payload


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\x00\x00",
        frame(b"no json"),
        frame(json.dumps({"arrays": [["x", "|O", [1]]]}).encode(), b"12345678"),
        frame(json.dumps({"arrays": [["x", "<i4", [100]]]}).encode(), b"1234"),
        frame(json.dumps({"op": "x"}).encode()),
        struct.pack("!IQ", 1 << 31, 0),
        frame(b"{}", b"1234")[:-2],
    ],
)
def test_what_is_no_message_is_refused(pair: tuple[socket.socket, socket.socket], sent: bytes) -> None:
    pair[0].sendall(sent)
    pair[0].close()
    with pytest.raises(WireError):
        receive_message(pair[1])


def test_an_array_that_could_hold_objects_is_never_sent(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(WireError, match="which is not exchanged"):
        send_message(pair[0], {"op": "x"}, {"x": np.array([object()])})
