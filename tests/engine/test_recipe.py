from __future__ import annotations

import subprocess
import sys

import pytest

from tests.engine.tiny import model
from zoo.engine.options.option_checks import check_fits
from zoo.engine.options.recipe import RANKED, TRAINS, UPDATES, Phase, Recipe, batch_size_for, phase_epochs, unfold
from zoo.engine.options.recipes import RECIPES, default_recipe, resolve_recipe
from zoo.engine.options.resolve import resolve
from zoo.errors import OptionError
from zoo.tuning.efficient.kinds import KINDS
from zoo.tuning.freeze import SELECTIONS


def test_a_misspelt_recipe_is_answered_with_the_nearest() -> None:
    with pytest.raises(OptionError, match=r"'layerdecay'.*did you mean 'layer-decay'"):
        resolve_recipe("layerdecay")


def test_the_named_recipes_are_there() -> None:
    assert set(RECIPES) == {"linear-probe", "full", "layer-decay", "lp-ft", "top", "gradual", "bitfit", *UPDATES}
    assert set(TRAINS) == set(SELECTIONS)
    assert set(UPDATES) == set(KINDS)
    assert set(RANKED) == {name for name, kind in KINDS.items() if "rank" in kind.options}


@pytest.mark.parametrize("epochs", [2, 3, 5, 10, 21])
def test_every_phase_gets_an_epoch_and_none_is_lost(epochs: int) -> None:
    recipe = Recipe(name="two", phases=(Phase(name="a", share=0.1), Phase(name="b", share=3.0)))
    shares = phase_epochs(recipe, epochs)
    assert sum(shares) == epochs
    assert min(shares) >= 1


def test_fewer_epochs_than_phases_leave_out_the_last_phases_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    assert phase_epochs(RECIPES["lp-ft"], 1) == [1, 0]
    with caplog.at_level("WARNING"):
        check_fits(model(), resolve("lp-ft", {"epochs": 1}))
    assert caplog.text.count("left out: full") == 1


def test_a_phase_that_has_fewer_epochs_than_groups_says_so(caplog: pytest.LogCaptureFixture) -> None:
    recipe = Recipe(name="short", phases=(Phase(name="down", frozen="each", steps=4),))
    with caplog.at_level("WARNING"):
        check_fits(model(), resolve(recipe, {}))
    assert "'down' has 1 epoch for" in caplog.text
    caplog.clear()
    with caplog.at_level("WARNING"):
        check_fits(model(), resolve("gradual", {}))
    assert "groups" not in caplog.text


def test_recipes_and_configurations_need_no_torch() -> None:
    code = "import sys, zoo.engine.options.config, zoo.engine.options.recipe; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_phase_with_faults_names_all_of_them() -> None:
    with pytest.raises(OptionError) as caught:
        Phase(name="x", lr=-1, epochs=0, steps=-3, schedule="lineal", share=float("nan"))
    for fact in ("lr is -1", "epochs is 0", "steps is -3", "one of them", "did you mean 'linear'", "share is nan"):
        assert fact in str(caught.value)
    with pytest.raises(OptionError, match="average"):
        Phase(name="average")
    for frozen in (True, None, 1.5):
        with pytest.raises(OptionError, match="a whole number, a group's name"):
            Phase(name="x", frozen=frozen)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="Phase has no option 'frozn' \\(did you mean 'frozen'"):
        Phase(name="x", frozn="all")  # type: ignore[call-arg]
    with pytest.raises(OptionError, match="Recipe has no option 'phase' \\(did you mean 'phases'"):
        Recipe(name="x", phase=())  # type: ignore[call-arg]
    with pytest.raises(OptionError, match="give a tuple of them"):
        Recipe(name="x", phases=Phase(name="a"))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="no phases"):
        Recipe(name="none", phases=())
    with pytest.raises(OptionError, match="several phases called head"):
        Recipe(name="twice", phases=(Phase(name="head"), Phase(name="tune"), Phase(name="head")))


def test_the_default_depends_on_the_task() -> None:
    assert default_recipe("single-label") is RECIPES["layer-decay"]
    assert default_recipe("token-classification").name == "layer-decay"
    assert phase_epochs(RECIPES["layer-decay"]) == [7, 3]


@pytest.mark.parametrize(("epochs", "expected"), [(None, [1, 3]), (1, [1, 0]), (2, [1, 1]), (10, [1, 9])])
def test_a_phase_that_is_solved_takes_one_epoch(epochs: int | None, expected: list[int]) -> None:
    recipe = RECIPES["layer-decay"]
    assert phase_epochs(recipe, epochs, [recipe.phases[0]]) == expected
    assert phase_epochs(RECIPES["linear-probe"], epochs, RECIPES["linear-probe"].phases) == [1]


@pytest.mark.parametrize(("samples", "size"), [(1, 8), (799, 8), (800, 16), (1599, 16), (1600, 32), (10**7, 32)])
def test_a_batch_leaves_an_epoch_its_steps(samples: int, size: int) -> None:
    assert batch_size_for(samples) == size


@pytest.mark.parametrize(
    ("steps", "epochs", "count"), [(400, None, 3), (100, None, 3), (60, None, 5), (1, None, 30), (1, 4, 4), (60, 2, 2)]
)
def test_a_phase_is_lengthened_to_its_least_steps_unless_epochs_are_given(steps: int, epochs: int | None, count: int) -> None:
    recipe = Recipe(name="one", phases=(Phase(name="tune", least_steps=300),), epochs=3)
    assert [found for _, found in unfold(recipe, epochs, 4, steps)] == [count]


def test_a_phase_has_a_fixed_length_or_a_least_one() -> None:
    with pytest.raises(OptionError, match="least_steps has no effect beside a fixed number of epochs or steps"):
        Phase(name="tune", epochs=3, least_steps=300)
    with pytest.raises(OptionError, match="least_steps is -1; it must be a whole number, 0 or more"):
        Phase(name="tune", least_steps=-1)
