"""The named recipes, and the default of each task. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from zoo.engine.options.recipe import Phase, Recipe
from zoo.errors import OptionError, did_you_mean
from zoo.tasks.find import find_task

LEAST_STEPS = 300  # of tuning; see docs/defaults.md
FEW_SAMPLES, FEW_SHARE = 16, 0.75  # up to which, and the share of the tuned values in the result then; see docs/defaults.md
REFIT_SAMPLES = 40  # up to which biases are fitted anew after tuning on augmented images; see docs/defaults.md

# Factor on the learning rate and meaning of each kind of parameters beside those of the backbone, which stay as they are.
_ADDED = {
    "lora": (0.3, "low-rank adapters beside the weights, which stay as they are (Hu et al. 2022)"),
    "dora": (0.3, "the norm of each output's weights, and low-rank updates of their direction (Liu et al. 2024)"),
    "loha": (0.3, "products of two low-rank updates, entry by entry (Hyeon-Woo et al. 2022)"),
    "lokr": (0.3, "Kronecker products beside the weights (Yeh et al. 2024)"),
    "adalora": (0.3, "low-rank updates whose ranks go to the layers that need them (Zhang et al. 2023)"),
    "ia3": (1.0, "a factor for each output of the layers ((IA)^3, Liu et al. 2022)"),
    "ssf": (1.0, "a scale and a shift of the outputs of the layers and norms (SSF, Lian et al. 2022)"),
    "adapter": (0.3, "a bottleneck behind each block (Houlsby et al. 2019)"),
    "adaptformer": (0.3, "a bottleneck beside the MLP of each block (Chen et al. 2022)"),
    "prompt": (1.0, "learned tokens in front of the first block (Lester et al. 2021, Jia et al. 2022)"),
    "prefix": (1.0, "learned tokens in front of every block (Li and Liang 2021, Jia et al. 2022)"),
}
RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            Recipe(
                name="linear-probe",
                phases=(Phase(name="probe", frozen="all", solve=True),),
                lr=3e-3,
                augment="none",
                description="The backbone stays as it is; the head trains on its features, which are computed once.",
            ),
            Recipe(
                name="full",
                phases=(Phase(name="full"),),
                lr=3e-4,
                description="Everything trains at one learning rate.",
            ),
            Recipe(
                name="layer-decay",
                phases=(
                    Phase(name="probe", frozen="all", solve=True, share=2.0, augment=False),
                    Phase(name="tune", lr=0.1, least_steps=LEAST_STEPS),
                ),
                lr=3e-3,
                layer_decay=0.75,
                epochs=10,
                freeze_bn=True,
                description="The head first, on cached features; then everything, more slowly toward the input.",
            ),
            Recipe(
                name="lp-ft",
                phases=(Phase(name="probe", frozen="all", solve=True, augment=False), Phase(name="full", lr=0.03)),
                lr=3e-3,
                freeze_bn=True,
                description="The head first, then everything at one small rate (Kumar et al. 2022).",
            ),
            Recipe(
                name="top",
                phases=(Phase(name="probe", frozen="all", solve=True, augment=False), Phase(name="top", frozen=-2, lr=0.1, augment=False)),
                lr=3e-3,
                freeze_bn=True,
                description="The head first, then the last two groups too; what is below them is computed once.",
            ),
            Recipe(
                name="gradual",
                phases=(
                    Phase(name="probe", frozen="all", solve=True, augment=False),
                    Phase(name="gradual", frozen="each", share=3.0, lr=0.03),
                ),
                lr=3e-3,
                layer_decay=0.75,
                freeze_bn=True,
                description="One group more per phase, from the head down (ULMFiT, Howard & Ruder 2018).",
            ),
            *(
                Recipe(
                    name=kind,
                    phases=(Phase(name="probe", frozen="all", solve=True, augment=False), Phase(name=kind, lr=factor)),
                    lr=3e-3,
                    weight_decay=0.0,
                    freeze_bn=True,
                    trains=kind,
                    description=f"The head first, then {what}.",
                )
                for kind, (factor, what) in _ADDED.items()
            ),
            Recipe(
                name="bitfit",
                phases=(Phase(name="probe", frozen="all", solve=True, augment=False), Phase(name="biases", lr=0.3)),
                lr=3e-3,
                freeze_bn=True,
                trains="bias",
                description="The head first, then the biases of the backbone as well (Ben Zaken et al. 2022).",
            ),
        )
    }
)


def resolve_recipe(recipe: str | Recipe) -> Recipe:
    """Return the recipe of this name, or the recipe itself.

    Raises:
        OptionError: With the nearest name, if there is none; for ``auto``, which is several.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if recipe == "auto":
        raise OptionError(
            f"recipe 'auto' is for fit() and zoo train, which try several recipes; name one of them here: {', '.join(RECIPES)}"
        )
    if recipe not in RECIPES:
        known = f"{', '.join(RECIPES)}, and auto, which tries several"
        near = did_you_mean(str(recipe), [*RECIPES, "auto"])
        raise OptionError(f"there is no recipe {recipe!r}{near}; the recipes are: {known}")
    return RECIPES[recipe]


# What a run of an earlier version may have begun with where no recipe was named.
_EARLIER: Mapping[str, Recipe] = MappingProxyType({"token-classification": replace(RECIPES["full"], lr=1e-4)})


def earlier_default(task: str) -> Recipe | None:
    """Return the default recipe that a task had in zoo 0.1.0, if it was another."""
    return _EARLIER.get(task)


def default_recipe(task: str) -> Recipe:
    """Return the default recipe of a task; docs/defaults.md has the evidence."""
    own = find_task(task).recipe
    return replace(RECIPES[own[0]], **own[1]) if own else RECIPES["layer-decay"]
