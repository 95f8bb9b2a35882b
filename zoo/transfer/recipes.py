"""Recipes of the methods that need one of their own, for runs that name none. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from zoo.engine.options.recipe import Phase, Recipe

_PROBE = Phase(name="probe", frozen="all", solve=True, augment=False)
_HEAD = Phase(name="head", frozen="all", solve=True, augment=False)  # the features are others than before

OWN_RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "contrastive": Recipe(
            name="contrastive",
            phases=(_PROBE, Phase(name="pairs", least_steps=30), _HEAD),
            lr=1e-4,
            weight_decay=0.01,
            epochs=5,
            batch_size=32,
            freeze_bn=True,
            description="The head first, then the features by pairs of samples, then the head on the new features.",
        ),
        "flyp": Recipe(
            name="flyp",
            phases=(Phase(name="contrastive"),),
            lr=1e-5,
            weight_decay=0.1,
            epochs=10,
            batch_size=128,
            freeze_bn=True,
            description="Both towers by the contrastive loss of their pretraining.",
        ),
        "maml": Recipe(
            name="maml",
            phases=(_PROBE, Phase(name="episodes", least_steps=300), _HEAD),
            lr=1e-4,
            weight_decay=0.01,
            epochs=5,
            batch_size=32,
            freeze_bn=True,
            description="The head first, then the features by episodes, then the head on the new features.",
        ),
        "simclr": Recipe(
            name="simclr",
            phases=(Phase(name="views"),),
            lr=1e-3,
            weight_decay=1e-4,
            epochs=20,
            batch_size=128,
            description="The whole backbone on pairs of augmented views.",
        ),
        "dino": Recipe(
            name="dino",
            phases=(Phase(name="crops"),),
            lr=5e-4,
            weight_decay=0.04,
            epochs=20,
            batch_size=64,
            description="The whole backbone on large and small crops, toward a moving average of itself.",
        ),
        "mae": Recipe(
            name="mae",
            phases=(Phase(name="patches"),),
            lr=5e-4,
            weight_decay=0.05,
            epochs=20,
            batch_size=64,
            description="The whole backbone and a decoder on images of which most patches are hidden.",
        ),
        "mlm": Recipe(
            name="mlm",
            phases=(Phase(name="masked", augment=False),),
            lr=1e-4,
            weight_decay=0.01,
            epochs=3,
            batch_size=32,
            description="The whole backbone and a language-model head on masked words.",
        ),
    }
)
