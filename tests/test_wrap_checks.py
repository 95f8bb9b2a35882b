"""Networks of the user's own that cannot become a backbone, or would surprise as one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zoo
from tests.engine.tiny import difference, images, values
from zoo.errors import DeclarationError, OptionError

INPUTS = zoo.Image(size=16)
FIT: dict[str, Any] = {"recipe": "full", "batch_size": 8, "lr": 1e-2, "epochs": 1, "quiet": True}


class Pair(nn.Module):
    """Two convolutions; a child may be replaced, and each is a layer group."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


class Twice(Pair):
    """A convolution that is used under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.third = self.second

    def forward(self, x: Tensor) -> Tensor:
        return self.third(super().forward(x).relu())


class Loose(Pair):
    """A convolution in a plain list, and one that is registered too."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = [nn.Conv2d(4, 4, 1)]
        self.named = {"second": self.second}

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks[0](super().forward(x))


class TwoInputs(Pair):
    """A network of a picture and numbers."""

    def forward(self, x: Tensor, numbers: Tensor) -> Tensor:  # type: ignore[override]  # what is tested
        return super().forward(x) + numbers


def test_every_wrong_argument_of_wrap_is_named_at_once() -> None:
    with pytest.raises(OptionError) as caught:
        zoo.wrap(Pair(), inputs=(3, 16, 16), layers=["first", "second"], features=4, name="a/b")  # type: ignore[arg-type]  # what is tested
    message = str(caught.value)
    assert all(part in message for part in ("inputs is (3, 16, 16)", "zoo.Image(size=", "features is 4", "name is 'a/b'"))
    assert "layers={'first': ['first'], 'second': ['second']}" in message


@pytest.mark.filterwarnings("ignore:`torch.jit.script:FutureWarning")
@pytest.mark.parametrize(
    ("module", "remedy"),
    [
        (lambda: nn.DataParallel(Pair()), r"inside a DataParallel.*its \.module"),
        (lambda: torch.compile(Pair()), r"inside a OptimizedModule.*its \._orig_mod"),
        (lambda: torch.jit.script(Pair()), "is TorchScript.*give the module it was made from"),
        (TwoInputs, r"TwoInputs\.forward needs 2 inputs \(x, numbers\)"),
    ],
)
def test_a_network_whose_layers_or_inputs_do_not_show_is_refused(module: Any, remedy: str) -> None:
    with pytest.raises(OptionError, match=remedy):
        zoo.wrap(module(), inputs=INPUTS, features=zoo.Features(dim=4, layout="BCHW"))


def test_a_network_that_cannot_be_copied_names_the_result_it_keeps() -> None:
    network = Pair()
    network.second.kept = network.second.weight * 2
    with pytest.raises(OptionError, match=r"copy\.deepcopy.*second\.kept; detach"):
        zoo.wrap(network, inputs=INPUTS).adapt(3)


@pytest.mark.usefixtures("toys")
def test_a_module_with_two_names_trains_and_opens_again(tmp_path: Path) -> None:
    backbone = zoo.wrap(Twice(), inputs=INPUTS)
    assert backbone.groups.names == ("first", "second", "third")
    net = backbone.adapt(3)
    before = values(net)
    run = net.fit(images(24), False, out=tmp_path / "run", **FIT)
    assert net.backbone.third is net.backbone.second
    assert difference({"w": before["backbone.third.weight"]}, {"w": values(net)["backbone.third.weight"]}) > 0
    assert difference(values(zoo.load(run.dir, backbone=zoo.wrap(Twice(), inputs=INPUTS))), values(net)) == 0.0


def test_modules_in_a_plain_list_are_told_and_registered_ones_are_not(caplog: pytest.LogCaptureFixture) -> None:
    zoo.wrap(Loose(), inputs=INPUTS)
    assert "the modules in blocks are in a plain list" in caplog.text
    caplog.clear()
    zoo.wrap(Twice(), inputs=INPUTS)
    assert not caplog.records


def test_parameters_without_gradients_are_told_as_the_recipe_trains_them(caplog: pytest.LogCaptureFixture) -> None:
    network = Pair()
    network.first.requires_grad_(False)
    with caplog.at_level(logging.WARNING, "zoo"):
        zoo.wrap(network, inputs=INPUTS)
    assert "2 parameters do not require gradients (first.weight, first.bias)" in caplog.text


class Auxiliary(Pair):
    """A network with a second output in training, as GoogLeNet has."""

    def forward(self, x: Tensor) -> Any:
        features = super().forward(x)
        return (features, features.mean((2, 3))) if self.training else features


class Detached(Pair):
    """A network that cuts its features off from the gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach()


class Shorter(Pair):
    """A network that drops rows."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:1]


@pytest.mark.parametrize(
    ("network", "features", "recipe", "found"),
    [
        (Auxiliary, None, "full", "'own/auxiliary' gives a tuple, not one tensor of features.*auxiliary outputs"),
        (Shorter, None, "full", r"gives features of shape \(1, 4, 8, 8\) for 8 inputs"),
        (Pair, zoo.Features(dim=5, layout="BCHW"), "linear-probe", r"shape \(\d+, 4, 8, 8\); declared are layout BCHW and dim 5"),
        (Auxiliary, zoo.Features(dim=5, layout="BCHW"), "linear-probe", "declared are layout BCHW and dim 5"),
    ],
)
def test_features_that_are_not_those_declared_are_named_in_training(
    network: Any, features: Any, recipe: str, found: str, tmp_path: Path
) -> None:
    net = zoo.wrap(network(), inputs=INPUTS, features=features).adapt(3)
    with pytest.raises(DeclarationError, match=found):
        net.fit(images(24), False, out=tmp_path / "run", **FIT | {"recipe": recipe})


def test_a_network_that_no_gradient_reaches_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    zoo.wrap(Detached(), inputs=INPUTS).adapt(3).fit(images(24), False, out=tmp_path / "run", **FIT)
    assert caplog.text.count("no gradient reaches its 4 parameters") == 1
    caplog.clear()
    frozen = zoo.wrap(Pair(), inputs=INPUTS).adapt(3).freeze("second").train()
    frozen(torch.zeros(2, 3, 16, 16))
    zoo.wrap(Pair(), inputs=INPUTS).adapt(3).train()(torch.zeros(2, 3, 16, 16))
    assert "no gradient reaches" not in caplog.text
