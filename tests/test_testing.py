import re

import pytest
import torch
from torch import nn

import zoo
from tests.toy import ToyNet, toy_spec
from zoo.registry import Registry, use_registry
from zoo.testing import backbone_checks, check_backbone


class Leaky(ToyNet):
    """Wrong in ways that flags would not show."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = x + nn.functional.dropout(self.blocks[1](x), 0.5, training=True)
        return self.blocks[0](x).flatten(1)


def leaky(in_chans: int = 3) -> Leaky:
    return Leaky(in_chans=in_chans)


class Plugin:
    @zoo.hookimpl
    def zoo_backbones(self) -> list[zoo.BackboneSpec]:
        return [toy_spec(), toy_spec("toy/leaky", build="tests.test_testing:leaky")]


@pytest.fixture(autouse=True)
def plugins() -> object:
    use_registry(Registry(plugins=[zoo.builtin, Plugin()], files=[]))
    yield
    use_registry()


def test_a_backbone_that_keeps_the_contract_passes_every_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.testing.listing_imports_no_torch", lambda subject: None)  # this test module imports torch itself
    assert check_backbone("toy/net") == len(backbone_checks()) == 10


def test_every_fault_of_a_backbone_is_listed() -> None:
    with pytest.raises(AssertionError) as caught:
        check_backbone("toy/leaky")
    message = str(caught.value)
    assert re.search(r"toy/leaky fails \d of 10 checks", message)
    for fact in ("listing_imports_no_torch", "features_are_as_declared: forward returns (2, 512)", "stem, stage.1, stage.0", "differ"):
        assert fact in message
