"""Every plot of a report, drawn from its document alone. matplotlib is imported when one is drawn."""

from __future__ import annotations

from typing import Any

from spikerl_deploy.report.plots.plot import Plot, write_plots
from spikerl_deploy.report.table import printable

__all__ = ["Plot", "draw_plots", "write_plots"]


def draw_plots(document: dict[str, Any]) -> list[Plot]:
    """All plots whose data the document holds, in the order of the page.

    Args:
        document: a report of the layout `spikerl.report/2`, validated.
    """
    from spikerl_deploy.report.plots import activity, conformance, energy, membranes, operations, returns, training
    from spikerl_deploy.report.plots.quantization import draw_quantization
    from spikerl_deploy.report.plots.style import drawing

    document = printable(document)
    with drawing():
        plots: list[Plot | None] = [*draw_quantization(document["deployments"])]
        for deployment in document["deployments"]:
            plots += [
                returns.draw_returns(deployment),
                operations.draw_operations(deployment),
                energy.draw_energy(deployment, document["inference"]),
                energy.draw_sweep(deployment),
                activity.draw_rates(deployment),
                activity.draw_raster(deployment, activity.RASTER_SPIKES // len(document["deployments"])),
                membranes.draw_membranes(deployment),
            ]
        plots += [conformance.draw_conformance(index, item) for index, item in enumerate(document["conformance"])]
        plots += training.draw_training(document["training"], document["speedups"])
    return [plot for plot in plots if plot is not None]
