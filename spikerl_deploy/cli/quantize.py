"""`spikerl quantize`: quantize a policy by recorded data, and fine-tune its integers if asked to."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spikerl_deploy.cli.common import (
    ForceOption,
    Format,
    FormatOption,
    SourceArgument,
    TrainedOption,
    complete_environment,
    console,
    print_json,
    read_source,
    say,
)
from spikerl_deploy.cli.export import print_written
from spikerl_deploy.cli.layer_table import print_layers
from spikerl_deploy.errors import SpikerlError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from exporters.fine_tune import Collect
    from spikerl_deploy.policy import Policy

DEFAULT_STEPS = 10_000
FEW_STEPS = 1_000
HELD_OUT = 10  # one in so many recorded control steps more is kept aside to choose the best integers by
DATA_HINT = "an .npz file with an array 'observations' [N, obs_dim], or 'spikes' [N, T, n_in] for a core alone"


def quantize(
    source: SourceArgument,
    bits: Annotated[int, typer.Option(help="Weight bits, 2 to 8.")] = 8,
    qat_steps: Annotated[
        int, typer.Option("--qat-steps", min=0, help="Gradient steps of quantization-aware training afterwards.")
    ] = 0,
    data: Annotated[
        Path | None, typer.Option("--data", help=f"Recorded data: {DATA_HINT}. Without it the policy plays.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Control steps that are recorded; 10,000 by default.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first recorded episode, and of the training.")] = 20_000,
    env: Annotated[
        str | None,
        typer.Option(help="Environment to record in; the policy's own.", autocompletion=complete_environment),
    ] = None,
    decay_bits: Annotated[int, typer.Option(help="Bits of the decays, 1 to 12; the chip has 12.")] = 12,
    encoder_bits: Annotated[
        int | None, typer.Option(help="Bits of the encoder's centres and widths, 2 to 16; else they stay float32.")
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Policy file that is written.")] = Path("policy.nir"),
    trained: TrainedOption = True,
    force: ForceOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Quantize and report, but write nothing.")] = False,
    output: FormatOption = Format.human,
) -> None:
    """Quantize a policy so that its spikes and actions stay, on data from its own closed loop."""
    from exporters.calibrate import calibrate, compare_recorded, report_recorded
    from exporters.grid import Grid, check_decay_bits
    from exporters.quantize import check_encoder_bits, float_source
    from spikerl_deploy.files import refuse_overwrite, sha256_file
    from spikerl_deploy.manifest import build_manifest
    from spikerl_deploy.policy_file import save_policy

    Grid(bits)  # what is out of range is refused before anything long
    check_decay_bits(decay_bits)
    if encoder_bits is not None:
        check_encoder_bits(encoder_bits)
    for flag, given in (("--env", env), ("--steps", steps)):
        if data is not None and given is not None:
            raise SpikerlError(f"{flag} {given} concerns recording, and --data is recorded", f"leave {flag} out")
    if not dry_run:
        refuse_overwrite(out, force)
    policy, origin = read_source(source)
    base = float_source(policy)
    steps = steps or DEFAULT_STEPS
    if data is not None:
        recorded, held_out = _split(_read_data(data), data, qat_steps > 0)
    else:
        recorded = _record(base, env, steps, seed)
        held_out = _record(base, env, max(steps // HELD_OUT, 1), _far(seed, steps)) if qat_steps else recorded[:0]
    if len(recorded) < FEW_STEPS:
        say(f"{len(recorded)} control steps are few to calibrate on; some thousands are better")
    result, reports = calibrate(base, recorded, bits, decay_bits, encoder_bits, say)
    document: dict[str, Any] = {
        "schema": "spikerl.quantize/1",
        "source": str(origin),
        "file": None if dry_run else str(out),
        "env": result.env_id,
        "sizes": list(result.sizes),
        "bits": bits,
        "decay_bits": decay_bits,
        "encoder_bits": encoder_bits,
        "recorded": {
            "control_steps": len(recorded),
            "file": str(data) if data is not None else None,
            "first_seed": seed if data is None else None,
        },
        "calibration": asdict(compare_recorded(result, recorded)),
        "qat": None,
        "layers": [asdict(report) for report in reports],
    }
    if qat_steps:
        from exporters.fine_tune import fine_tune

        collect = None if data is not None else _collector(env or base.env_id, steps, _far(seed, 2 * steps))
        result, tuning = fine_tune(result, recorded, held_out, qat_steps, seed, collect, say)
        document["qat"] = asdict(tuning)
        document["layers"] = [asdict(report) for report in report_recorded(result, recorded)]
    if not trained:
        result = replace(result, trained=None, trained_encoder=None)
    made = build_manifest(seed, made_from={"source": origin} | ({} if data is None else {"data": data}))
    result = replace(result, provenance=made | {"origin": policy.provenance or None})
    if not dry_run:
        save_policy(result, out, force)
        document |= {"bytes": out.stat().st_size, "sha256": sha256_file(out)}
    if output is Format.json:
        print_json(document)
    else:
        _print(document)
    if not dry_run and result.closed_loop_ready:
        say(f"next: spikerl simulate {out} --backend lava{' --compare torch' if trained else ''} -o report")


def _far(seed: int, steps: int) -> int:
    """A seed beyond those of all episodes that recording `steps` control steps from `seed` on may play."""
    from simulators.recording import PARALLEL

    return seed + (steps + 1) * PARALLEL


def _split(array: NDArray[np.generic], path: Path, hold_out: bool) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Recorded data to calibrate and train on, and its last tenth to choose by, if that is needed."""
    count = max(len(array) // HELD_OUT, 1) if hold_out else 0
    if len(array) <= count:
        raise SpikerlError(f"'{path}' holds {len(array)} control steps, too few to train and to choose by", DATA_HINT)
    return array[: len(array) - count], array[len(array) - count :]


def _record(policy: Policy, env: str | None, steps: int, seed: int) -> NDArray[np.generic]:
    """Observations of the float policy's own closed loop."""
    from simulators.recording import record_observations
    from simulators.torch_backend import TorchBackend

    env_id = env or policy.env_id
    if policy.encoder is None or policy.decoder is None or env_id is None:
        raise SpikerlError("the policy is a core alone and cannot play: it needs recorded data", f"--data: {DATA_HINT}")
    say(f"recording {steps} control steps of {env_id}")
    return record_observations(TorchBackend("cpu"), policy, env_id, steps, seed)


def _collector(env_id: str | None, steps: int, seed: int) -> Collect:
    """Plays the quantized policy, each time with other seeds."""
    from simulators.fixed import FixedBackend
    from simulators.recording import record_observations

    assert env_id is not None

    def collect(policy: Policy) -> NDArray[np.generic]:
        nonlocal seed
        seen = record_observations(FixedBackend(), policy, env_id, steps, seed)
        seed = _far(seed, steps)
        return seen

    return collect


def _read_data(path: Path) -> NDArray[np.generic]:
    """The one array of an .npz file of recorded data."""
    import zipfile
    import zlib

    import numpy as np

    broken = (OSError, ValueError, EOFError, AttributeError, TypeError, KeyError, zipfile.BadZipFile, zlib.error)
    exhausted = (MemoryError, OverflowError, RuntimeError, NotImplementedError)  # false sizes, ciphers, odd compression
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise SpikerlError(f"'{path}' holds one array without a name", f"give {DATA_HINT}")
        with file:
            names = [name for name in ("observations", "spikes") if name in file.files]
            if len(names) != 1:
                raise SpikerlError(f"'{path}' holds {', '.join(file.files) or 'nothing'}", f"give {DATA_HINT}")
            array: NDArray[np.generic] = file[names[0]]
    except (*broken, *exhausted) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SpikerlError(f"cannot read recorded data '{path}': {reason}", f"give {DATA_HINT}") from error
    if names[0] == "spikes" and array.dtype != np.bool_:
        if not (np.issubdtype(array.dtype, np.number) and np.isin(array, (0, 1)).all()):
            raise SpikerlError(f"'{path}': spikes are {array.dtype}, with other values than 0 and 1", "give booleans")
        return array.astype(bool)
    if names[0] == "observations" and not np.issubdtype(array.dtype, np.floating):
        raise SpikerlError(f"'{path}': observations are {array.dtype}, floats were expected", f"give {DATA_HINT}")
    return array


def _print(document: dict[str, Any]) -> None:
    out = console()
    print_written(document)
    print_layers(document["layers"])
    recorded = document["recorded"]["control_steps"]
    out.print(f"calibrated on {recorded} control steps: {_agreement(document['calibration'])}", soft_wrap=True)
    if document["qat"]:
        qat = document["qat"]
        kept = (
            f"kept the integers of step {qat['kept']}" if qat["kept"] else "no step was better: the calibration stays"
        )
        out.print(
            f"trained for {qat['steps']} steps, {kept}; held-out control steps before: {_agreement(qat['before'])}; "
            f"after: {_agreement(qat['after'])}",
            soft_wrap=True,
        )


def _agreement(entry: dict[str, Any]) -> str:
    counts = f"output spike counts differ by {entry['spike_error']:.4f} a neuron"
    if entry["action_error"] is None:
        return counts
    return f"actions differ by {entry['action_error']:.4f} half ranges (rms), {counts}"
