"""The compatibility hook: unmodified Lava imports on this Python, and its stock processes compute known values."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support import ROOT

# Runs in a process of its own, as the worker does: Lava forks, and must not meet torch.
STOCK_PROCESSES = """
import sys
from pathlib import Path
from simulators.lava.compat import make_importable
make_importable(Path(sys.argv[1]))
import numpy as np
from scipy.sparse import csr_matrix
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.dense.process import Dense
from lava.proc.io.extractor import Extractor, PyLoihiExtractorModel
from lava.proc.io.injector import Injector, PyLoihiInjectorModel
from lava.proc.lif.process import LIF, LIFReset
from lava.proc.sparse.process import Sparse

WEIGHTS = np.array([[100, 40], [-60, 254], [300, 31]])  # 300 clips to 255, odd values floor to even
INPUT = np.array([[1, 0], [0, 1], [1, 1], [0, 0], [0, 0], [0, 0]])

def run(connection, neuron, steps):
    injector, extractor = Injector(shape=(2,)), Extractor(shape=(3,))
    injector.out_port.connect(connection.s_in)
    connection.a_out.connect(neuron.a_in)
    neuron.s_out.connect(extractor.in_port)
    models = {Injector: PyLoihiInjectorModel, Extractor: PyLoihiExtractorModel}
    config = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=models)
    injector.create_runtime(run_cfg=config)
    spikes, states = [], []
    for t in range(steps):
        injector.run(condition=RunSteps(1, blocking=False), run_cfg=config)
        injector.send(INPUT[t].astype(float))
        spikes.append(extractor.receive().astype(int).tolist())
        injector.wait()
        states.append((neuron.u.get().tolist(), neuron.v.get().tolist()))
    injector.stop()
    return spikes, states

neuron = dict(shape=(3,), du=2047, dv=1024, vth=200)
dense = run(Dense(weights=WEIGHTS), LIF(**neuron), 6)
sparse = run(Sparse(weights=csr_matrix(WEIGHTS)), LIF(**neuron), 6)
reset = run(Dense(weights=WEIGHTS), LIFReset(**neuron, reset_interval=3, reset_offset=1), 6)
shifted = run(Dense(weights=WEIGHTS, weight_exp=2), LIF(**neuron), 2)
print(repr((dense, sparse, reset, shifted)))
"""


def run_stock_processes(lava_folder: Path) -> tuple:
    done = subprocess.run(
        [sys.executable, "-c", STOCK_PROCESSES, str(lava_folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return eval(done.stdout.splitlines()[-1], {})


def expected(reset_steps: tuple[int, ...], weight_exp: int = 0, steps: int = 6) -> tuple[list, list]:
    """The same by hand: Dense delays by a step; u halves, v keeps three quarters, both truncate towards zero."""
    weights = [[100, 40], [-60, 254], [254, 30]]
    inputs = [(0, 0), (1, 0), (0, 1), (1, 1), (0, 0), (0, 0)]
    u, v = [0, 0, 0], [0, 0, 0]
    spikes, states = [], []
    for step, (x, y) in enumerate(inputs[:steps], start=1):
        if step in reset_steps:
            u, v = [0, 0, 0], [0, 0, 0]
        row = []
        for n, (a, b) in enumerate(weights):
            u[n] = int(u[n] / 2) + ((a * x + b * y) << weight_exp << 6)
            v[n] = int(v[n] * 3 / 4) + u[n]
            row.append(int(v[n] > 200 * 64))
            v[n] = 0 if row[-1] else v[n]
        spikes.append(row)
        states.append((list(u), list(v)))
    return spikes, states


def test_stock_processes_give_known_results(lava_folder: Path) -> None:
    dense, sparse, reset, shifted = run_stock_processes(lava_folder)
    assert dense == expected(())
    assert sparse == dense
    assert reset == expected((1, 4))
    assert reset != dense
    assert shifted == expected((), weight_exp=2, steps=2)
    assert [1, 0, 0] not in dense[0][:1]
    assert any(any(row) for row in dense[0])


def test_the_hook_leaves_other_dataclasses_alone() -> None:
    code = (
        "import dataclasses\n"
        "from simulators.lava.compat import apply_compatibility\n"
        "apply_compatibility()\n"
        "class Unhashable(list): pass\n"
        "try:\n"
        "    dataclasses.dataclass(type('D', (), {'__annotations__': {'x': list}, 'x': Unhashable()}))\n"
        "except ValueError as error: print('refused:', error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.startswith("refused: mutable default")


def test_without_the_hook_this_lava_does_not_import(lava_folder: Path) -> None:
    """When this fails, the hook is no longer needed."""
    code = f"import sys; sys.path.append({str(lava_folder)!r}); import lava.magma.compiler.var_model"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert "mutable default" in done.stderr
