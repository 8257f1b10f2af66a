"""The worker: a process that owns Lava, serves one session over a socket, and dies with its parent.

Started as `python -P -m simulators.lava.worker FD LAVA_FOLDER die|watch SEGMENT_PREFIX`. It must not import torch,
since Lava forks.
"""

from __future__ import annotations

import ctypes
import os
import platform
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import shared_memory
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simulators.lava.compat import make_importable
from simulators.lava.wire import PROTOCOL_VERSION, Arrays, WireClosed, receive_message, send_message
from spikerl_deploy.loihi import IntegerLayer
from spikerl_deploy.policy import SpikingLayer

if TYPE_CHECKING:
    from simulators.lava.float_network import FloatPolicyNetwork
    from simulators.lava.graph_network import GraphNetwork
    from simulators.lava.network import LavaNetwork
    from simulators.lava.stock_network import StockNetwork

    PolicyNetwork = LavaNetwork | StockNetwork | FloatPolicyNetwork

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

    worker = os.getpid()

    def in_child() -> None:
        connection.close()
        _set_death_signal()
        if os.getppid() != worker:  # it died before the signal was set
            os._exit(1)

    os.register_at_fork(after_in_child=in_child)


def _name_segments(prefix: str) -> None:
    """Give the shared memory that this process and its children make names by which the client finds it.

    Where all of them are killed at once, nobody else is left to remove it.
    """
    shared_memory._make_filename = lambda: f"/{prefix}{secrets.token_hex(4)}"  # type: ignore[attr-defined]


def _open_policy(fields: dict[str, Any], arrays: Arrays) -> PolicyNetwork:
    """The network that the message names. Lava is imported here, on first use."""
    from simulators.lava.float_network import FloatPolicyNetwork
    from simulators.lava.network import LavaNetwork
    from simulators.lava.stock_network import StockNetwork

    layer: type[IntegerLayer | SpikingLayer] = SpikingLayer if fields["network"] == "float" else IntegerLayer
    layers: Any = [
        layer(arrays[f"weight{index}"], arrays[f"bias{index}"], **scalars)
        for index, scalars in enumerate(fields["layers"])
    ]
    classes: dict[str, Any] = {"chain": LavaNetwork, "stock": StockNetwork, "float": FloatPolicyNetwork}
    network: PolicyNetwork = classes[fields["network"]](layers, fields["time_steps"], fields["batch"])
    # Lava cannot stop a network that never ran: it would wait for ever for processes that it never told to run.
    network.infer(np.zeros((network.batch, network.time_steps, layers[0].weight.shape[1]), dtype=bool))
    return network


def _open_graph(fields: dict[str, Any], arrays: Arrays) -> GraphNetwork:
    from simulators.lava.graph_network import open_graph

    return open_graph(fields, arrays)


def serve(connection: socket.socket) -> None:
    """Answer requests to open a network, run it and close, until the connection ends."""
    openers: dict[str, Callable[[dict[str, Any], Arrays], Any]] = {"open": _open_policy, "open_graph": _open_graph}
    network: Any = None  # one at a time; several may follow one another
    send_message(connection, {"op": "hello", "protocol": PROTOCOL_VERSION})
    try:
        while True:
            fields, arrays = receive_message(connection)
            if fields["op"] in openers:
                if network is not None:
                    network.close()
                network = openers[fields["op"]](fields, arrays)
                send_message(connection, {"op": "opened"})
            elif fields["op"] == "infer":
                rasters = network.infer(arrays["spikes"])
                send_message(connection, {"op": "spikes"}, {f"layer{i}": r for i, r in enumerate(rasters)})
            elif fields["op"] == "run_graph":
                send_message(connection, {"op": "states"}, network.run(arrays["values"]))
            else:
                break
    except WireClosed:
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
    _name_segments(sys.argv[4])
    serve(connection)


if __name__ == "__main__":
    main()
