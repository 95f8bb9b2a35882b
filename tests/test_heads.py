from typing import Any

import pytest
import torch

import zoo
from zoo.declare import Features
from zoo.errors import OptionError
from zoo.models.heads import LinearHead, MLPHead
from zoo.models.pooling import Pool

SHAPES = {"BCHW": (2, 6, 3, 4), "BHWC": (2, 3, 4, 6), "BCDHW": (2, 6, 3, 4, 5), "BND": (2, 7, 6), "BD": (2, 6)}


@pytest.mark.parametrize("layout", SHAPES)
def test_every_layout_pools_to_one_vector_per_sample(layout: str) -> None:
    assert Pool(Features(dim=6, layout=layout))(torch.randn(SHAPES[layout])).shape == (2, 6)


def test_average_and_maximum_are_taken_over_space() -> None:
    x = torch.randn(SHAPES["BCHW"])
    assert torch.allclose(Pool(Features(dim=6))(x), x.mean((2, 3)))
    assert torch.equal(Pool(Features(dim=6), "max")(x), x.amax((2, 3)))
    channels_last = x.permute(0, 2, 3, 1)
    assert torch.allclose(Pool(Features(dim=6, layout="BHWC"))(channels_last), x.mean((2, 3)), atol=1e-6)


def test_tokens_that_are_no_patches_are_left_out_of_the_average() -> None:
    x = torch.randn(SHAPES["BND"])
    features = Features(dim=6, layout="BND", prefix_tokens=2)
    assert torch.equal(Pool(features)(x), x[:, 0])
    assert torch.allclose(Pool(features, "avg")(x), x[:, 2:].mean(1))


def test_the_last_token_is_the_last_that_is_no_padding() -> None:
    x, pool = torch.randn(SHAPES["BND"]), Pool(Features(dim=6, layout="BND", pool="last"))
    mask = torch.tensor([[1, 1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 1, 1]])
    assert torch.equal(pool(x, mask), torch.stack([x[0, 2], x[1, 6]]))
    assert torch.equal(pool(x, torch.ones_like(mask)), x[:, -1])
    assert torch.equal(pool(x), x[:, -1])


def test_a_declared_normalization_belongs_to_the_declared_pooling() -> None:
    x, features = torch.randn(SHAPES["BND"]), Features(dim=6, layout="BND", pool="avg", normalize=True)
    raw = x.mean(1)
    for pool in (Pool(features), Pool(features, "avg"), Pool(Features(dim=6, layout="BND"), normalize=True)):
        assert torch.allclose(pool(x), raw / raw.norm(dim=1, keepdim=True), atol=1e-6)
    for pool in (Pool(features, normalize=False), Pool(Features(dim=6, layout="BND"))):
        assert torch.equal(pool(x), raw)
    assert torch.equal(Pool(features, "max")(x), x.amax(1))
    for head in (LinearHead(features, 2, normalize=False), MLPHead(features, 2, normalize=False)):
        assert torch.equal(head.pool(x), raw)
    with pytest.raises(OptionError, match="normalize is 'yes'"):
        LinearHead(features, 2, normalize="yes")  # type: ignore[arg-type]
    with pytest.raises(zoo.ZooError, match="normalize is 1"):
        Features(dim=6, normalize=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(("layout", "how"), [("BCHW", "token"), ("BD", "avg"), ("BND", "mean"), ("BND", "token")])
def test_a_pooling_that_does_not_fit_is_refused(layout: str, how: str) -> None:
    with pytest.raises(OptionError, match=how):
        Pool(Features(dim=6, layout=layout), how)


def test_logits_have_one_column_per_class() -> None:
    x = torch.randn(SHAPES["BCHW"])
    for head in (LinearHead(Features(dim=6), 5), MLPHead(Features(dim=6), 5)):
        assert head(x).shape == (2, 5)
        assert torch.equal(head.eval()(x), head.logits(head.pool(x)))


def test_the_mlp_head_is_the_one_of_the_literature() -> None:
    head = MLPHead(Features(dim=512), 3)
    assert (head.hidden.in_features, head.hidden.out_features, head.dropout.p, head.linear.out_features) == (512, 256, 0.5, 3)


def test_a_head_can_be_without_bias() -> None:
    assert LinearHead(Features(dim=6), 5, bias=False).state_dict().keys() == {"linear.weight"}
    head = MLPHead(Features(dim=6), 5, bias=False, norm=True)
    assert head.state_dict().keys() == {"hidden.weight", "norm.weight", "linear.weight", "linear.bias"}


def test_the_norm_follows_the_activation() -> None:
    x, head = torch.randn(4, 6), MLPHead(Features(dim=6, layout="BD"), 5, hidden=8, activation="gelu", norm=True).eval()
    with torch.no_grad():
        head.norm.weight.mul_(2)
        hidden = torch.nn.functional.layer_norm(torch.nn.functional.gelu(head.hidden(x)), (8,), head.norm.weight, head.norm.bias)
        assert torch.allclose(head(x), head.linear(hidden))


@pytest.mark.parametrize("options", [{"dropout": 1.0}, {"dropout": -0.1}, {"dropout": "a"}, {"dropout": None}])
def test_a_dropout_out_of_range_is_refused(options: dict[str, Any]) -> None:
    for head in (LinearHead, MLPHead):
        with pytest.raises(OptionError, match="dropout"):
            head(Features(dim=6), 2, **options)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"hidden": 10**12}, r"hidden is 1000000000000: that is a layer of 6 x 1000000000000 values, 24 TB; take at most 715827882"),
    ({"hidden": 2.5}, r"hidden is 2\.5; it must be a whole number"),
    ({"hidden": "a", "bias": "no", "activation": 3}, r"(?s)hidden is 'a'.*activation 3 is none of.*bias is 'no'; it must be True or False"),
    ({"hidden": True}, "hidden is True"),
    ({"hidden": 0}, "at least 1"),
]


@pytest.mark.parametrize(("options", "words"), WRONG)
def test_options_that_no_layer_can_have_are_refused_before_memory_is_taken(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        MLPHead(Features(dim=6), 2, **options)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_more_outputs_than_a_machine_can_hold_are_refused(head: str) -> None:
    with pytest.raises(OptionError, match=r"num_classes is 1000000000000: that is a layer of"):
        zoo.get("zoo/glyphnet", weights=False).adapt(10**12, head=head)


@pytest.mark.parametrize("in_chans", [0, 10**12, 2.5, True])
def test_channels_that_no_input_has_are_refused_at_once(in_chans: Any) -> None:
    with pytest.raises(OptionError, match=rf"in_chans is {in_chans}; an input has 1 to 65535 channels"):
        zoo.get("zoo/glyphnet", weights=False).adapt(3, in_chans=in_chans)
    with pytest.raises(OptionError, match=rf"in_chans is {in_chans}; an input has 1 to 65535 channels"):
        zoo.get("zoo/glyphnet", weights=False, in_chans=in_chans)
