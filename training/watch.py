"""Which of many numbers on the device were first not finite, and when; the host looks only when it asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class Watch:
    """The first update at which each of a learner's gradients and losses was not finite.

    Attributes:
        names: what is watched, all learners in turn.
        first: int64, for each name the update, or -1.
    """

    def __init__(self, names: Mapping[str, Sequence[str]], device: torch.device) -> None:
        """Args: `names` of what is watched, by learner."""
        self.names = [name for own in names.values() for name in own]
        self.first = torch.full((len(self.names),), -1, dtype=torch.int64, device=device)
        parts = self.first.split([len(own) for own in names.values()])
        self._parts = dict(zip(names, parts, strict=True))  # views

    def note(self, learner: str, sizes: Tensor, update: Tensor) -> None:
        """Note which of a learner's sizes [n] are not finite at an update, an int64 on the device."""
        first = self._parts[learner]
        first.copy_(torch.where(torch.isfinite(sizes) | (first >= 0), first, update))

    def fault(self) -> tuple[int, str] | None:
        """The first update with a number that was not finite, and the name of that; None if all were."""
        if not (self.first >= 0).any():
            return None
        found = [(update, name) for update, name in zip(self.first.tolist(), self.names, strict=True) if update >= 0]
        return min(found, key=lambda item: item[0])
