"""Which actor a run trains, and which target actor follows it: the only place that makes them."""

from __future__ import annotations

import copy

from training.actor import Actor, Spaces, SpikingActor
from training.mlp_actor import MLPActor
from training.settings import Settings
from training.stacked import Generators


def make_actor(spaces: Spaces, settings: Settings, generators: Generators) -> Actor:
    """The actor of a run, for one seed a generator."""
    if settings.actor == "mlp":
        return MLPActor(spaces, settings.hidden, generators)
    return SpikingActor(spaces, settings, generators)


def make_target(actor: Actor, settings: Settings, generators: Generators) -> Actor:
    """The target actor: a copy that is averaged towards the actor, or a proxy that is trained to imitate it.

    Parameters that require gradients are what tells that it is trained.
    """
    if settings.target_actor == "proxy":
        return MLPActor(actor.spaces, settings.proxy_hidden, generators)
    return copy.deepcopy(actor).requires_grad_(False)
