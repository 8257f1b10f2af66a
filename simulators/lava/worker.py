"""The worker: a process that owns Lava, serves one session over a socket, and dies with its parent.

Started as `python -P -m simulators.lava.worker FD LAVA_FOLDER die|watch`. It must not import torch, since Lava forks.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from simulators.lava.compat import make_importable
from simulators.lava.wire import PROTOCOL_VERSION, Arrays, WireError, receive_message, send_message
from spikerl_deploy.loihi import IntegerLayer

PARENT_POLL_SECONDS = 0.5
PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if platform.system() == "Linux" else None


def _die_with_parent(at_once: bool) -> None:
    """Watch for the parent's death from a thread, and end the whole process group with it.

    Args:
        at_once: let the kernel end this process as well, which works even while it is stopped.
    """
    parent = os.getppid()
    if at_once:
        _set_death_signal()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_SECONDS)
        os.killpg(os.getpgrp(), signal.SIGCONT)  # one that was stopped could not tidy up
        os.killpg(os.getpgrp(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _set_death_signal() -> None:
    """Have the kernel kill this process when the thread that started it ends (Linux only)."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _guard_forks(connection: socket.socket) -> None:
    """Let the processes that Lava forks die with the worker and not hold its connection open."""

    def in_child() -> None:
        connection.close()
        _set_death_signal()

    os.register_at_fork(after_in_child=in_child)


def _layers(fields: dict[str, Any], arrays: Arrays) -> list[IntegerLayer]:
    return [
        IntegerLayer(arrays[f"weight{index}"], arrays[f"bias{index}"], **scalars)
        for index, scalars in enumerate(fields["layers"])
    ]


def serve(connection: socket.socket) -> None:
    """Answer `open`, `infer` and `close` until the connection ends."""
    from simulators.lava.network import LavaNetwork

    network: LavaNetwork | None = None
    send_message(connection, {"op": "hello", "protocol": PROTOCOL_VERSION})
    try:
        while True:
            fields, arrays = receive_message(connection)
            if fields["op"] == "open":
                network = LavaNetwork(_layers(fields, arrays), fields["time_steps"], fields["batch"])
                send_message(connection, {"op": "opened"})
            elif fields["op"] == "infer":
                assert network is not None
                rasters = network.infer(arrays["spikes"])
                send_message(connection, {"op": "spikes"}, {f"layer{i}": r for i, r in enumerate(rasters)})
            else:
                break
    except WireError:
        pass  # the client is gone; there is nobody left to tell
    finally:
        if network is not None:
            network.close()
    try:
        send_message(connection, {"op": "closed"})
    except OSError:
        pass


def main() -> None:
    """Entry point of the worker process."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    _die_with_parent(at_once=sys.argv[3] == "die")
    make_importable(Path(sys.argv[2]))
    _guard_forks(connection)
    serve(connection)


if __name__ == "__main__":
    main()
