"""The machine that a benchmark ran on."""

from __future__ import annotations

import os
from typing import Any

from spikerl_deploy.processor import processor


def machine() -> dict[str, Any]:
    """Processor and number of cores that this process may use."""
    return {"processor": processor(), "cores": len(os.sched_getaffinity(0))}
