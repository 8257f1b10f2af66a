"""`spikerl inspect`: what a policy file, a checkpoint or a run holds."""

from __future__ import annotations

from typing import Any

from spikerl_deploy.cli.common import Format, FormatOption, SourceArgument, console, print_json, read_source


def inspect(
    source: SourceArgument,
    output: FormatOption = Format.human,
) -> None:
    """Show what a policy is made of and where it came from."""
    from spikerl_deploy.files import sha256_file

    policy, origin = read_source(source)
    document: dict[str, Any] = {
        "schema": "spikerl.policy/1",
        "file": str(origin),
        "sha256": sha256_file(origin),
        "env": policy.env_id,
        "sizes": list(policy.sizes),
        "time_steps": policy.time_steps,
        "dt_s": policy.dt,
        "coding": policy.encoder.coding if policy.encoder is not None else None,
        "bits": policy.bits,
        "carries_trained_weights": policy.trained is not None,
        "encoder_quantized": policy.trained_encoder is not None,
        "closed_loop": policy.closed_loop_ready,
        "layers": [
            {
                "n_in": layer.n_in,
                "n_out": layer.n_out,
                "current_decay": layer.current_decay,
                "voltage_decay": layer.voltage_decay,
                "v_threshold": layer.v_threshold,
            }
            for layer in policy.layers
        ],
        "provenance": policy.provenance,
    }
    if output is Format.json:
        print_json(document)
        return
    out = console()
    kind = f"{policy.bits}-bit integers" if policy.bits else "float32"
    if policy.trained is not None:
        kind += ", with its trained float weights"
    if policy.trained_encoder is not None:
        kind += ", encoder on a grid"
    out.print(f"{origin}: {'-'.join(map(str, policy.sizes))}, {kind}", soft_wrap=True)
    out.print(f"environment {policy.env_id or 'none (a core alone)'}, T {policy.time_steps}, dt {policy.dt:g} s")
    out.print(f"sha256 {document['sha256']}")
    if policy.provenance:
        made = policy.provenance
        out.print(f"made {made.get('created')} by: {' '.join(made.get('command', []))}", soft_wrap=True)
