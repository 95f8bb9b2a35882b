import copy
import logging
import re

import pytest
import torch

import zoo
from tests.toy import toy_spec
from zoo.errors import OptionError
from zoo.models.backbone import Backbone

pytestmark = pytest.mark.usefixtures("toys")


def test_adapt_gives_one_logit_per_class() -> None:
    model = zoo.get("toy/net", weights=False).adapt(5)
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 5)
    assert model.groups.names == ("stem", "stage.0", "stage.1")
    assert model.embed_batch(torch.randn(2, 3, 16, 16)).shape == (2, 8)


def test_two_adaptations_share_nothing() -> None:
    backbone = zoo.get("toy/net", weights=False)
    first, second = backbone.adapt(2), backbone.adapt(2)
    assert next(first.backbone.parameters()) is not next(second.backbone.parameters())


def test_the_head_depends_on_the_seed_alone() -> None:
    backbone = zoo.get("toy/net", weights=False)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    heads = [backbone.adapt(2, seed=seed).head.linear.weight for seed in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    torch.random.set_rng_state(state)


def test_a_random_backbone_depends_on_the_seed_alone() -> None:
    backbone = zoo.get("toy/net", weights=False)
    weights = [backbone.adapt(2, seed=seed).backbone.conv1.weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("num_classes", [0, -3, 1, 2.5, True])
def test_a_number_of_classes_that_cannot_be_is_refused(num_classes: int) -> None:
    with pytest.raises(OptionError, match=re.escape(repr(num_classes))):
        zoo.get("toy/net", weights=False).adapt(num_classes)


def test_all_wrong_arguments_are_told_at_once() -> None:
    with pytest.raises(OptionError) as caught:
        zoo.get("toy/net", weights=False).adapt(0, task="multilabel", labels=["a", "a"])
    for fact in ("did you mean 'multi-label'", "num_classes is 0", "2 labels are given for 0", "twice"):
        assert fact in str(caught.value)


def test_unknown_options_are_told_with_the_nearest() -> None:
    with pytest.raises(OptionError, match="did you mean 'dropout'"):
        zoo.get("toy/net", weights=False).adapt(2, dropuot=0.1)
    with pytest.raises(OptionError, match="did you mean 'linear'"):
        zoo.get("toy/net", weights=False).adapt(2, head="liner")
    with pytest.raises(OptionError, match="did you mean 'drop_rate'"):
        zoo.get("toy/net", weights=False, drop_rte=0.1)


@pytest.mark.parametrize("channels", [1, 5])
def test_the_input_follows_the_channels(channels: int) -> None:
    model = zoo.get("toy/net", weights=False).adapt(2, in_chans=channels)
    assert model.inputs.channels == channels
    assert model(torch.randn(2, *model.inputs.shape)).shape == (2, 2)


def test_weights_that_a_backbone_does_not_have_are_said_or_refused(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        zoo.get("toy/net").build()
    assert "random values" in caplog.text
    with pytest.raises(OptionError, match="no pretrained weights"):
        zoo.get("toy/net", weights=True)


@pytest.mark.parametrize("k", [0, 1, 2, 3, "stem", "stage.0"])
def test_train_mode_leaves_the_frozen_prefix_in_eval_mode(k: int | str) -> None:
    model = zoo.get("toy/net", weights=False).adapt(2).freeze(k)
    for _ in range(2):
        model.train()
        modes = [{module.training for _, outer in group.modules() for module in outer.modules()} for group in model.groups]
        assert modes == [{False}] * model.frozen + [{True}] * (3 - model.frozen)
        assert model.head.training
        model.eval()
        assert not any(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.unfreeze().parameters())


def test_a_copied_model_freezes_itself_and_not_the_original() -> None:
    model = zoo.get("toy/net", weights=False).adapt(2)
    copied = copy.deepcopy(model)
    copied.freeze("stem")
    assert model.backbone.conv1.weight.requires_grad
    assert not copied.backbone.conv1.weight.requires_grad


def test_features_come_in_the_declared_layout_without_gradient() -> None:
    backbone = Backbone(toy_spec(), weights=False)
    features = backbone.features(torch.randn(2, 3, 16, 16))
    assert features.shape == (2, 8, 8, 8)
    assert not features.requires_grad
    assert backbone.build() is backbone.groups.model


def test_arguments_of_adapt_and_of_other_libraries_are_told_what_takes_them() -> None:
    with pytest.raises(OptionError) as caught:
        zoo.get("toy/net", weights=False, num_classes=2, pretrained=True)
    assert "'num_classes' (the classes belong to the head: .adapt(num_classes=2))" in str(caught.value)
    assert "'pretrained' (pretrained weights are the default" in str(caught.value)
