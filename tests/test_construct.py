import logging

import pytest
import torch
from torch import nn

from tests.toy import ToyNet, toy_spec
from zoo.declare import Weights
from zoo.errors import CoverageError, DeclarationError, ZooError
from zoo.models.construct.build import build, on_meta
from zoo.models.construct.state_fit import adapt_input, fit_state


def test_a_module_filled_from_a_state_equals_the_one_it_came_from() -> None:
    source = ToyNet().eval()
    built = build(toy_spec(), source.state_dict).eval()
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(built(x), source(x))


def test_nothing_is_initialised_that_the_weights_overwrite() -> None:
    state = {name: tensor.clone() for name, tensor in ToyNet().state_dict().items()}
    before = torch.random.get_rng_state()
    build(toy_spec(), lambda: state)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_values_are_assigned_without_a_copy() -> None:
    state = ToyNet().state_dict()
    assert build(toy_spec(), lambda: state).get_parameter("conv1.weight").data_ptr() == state["conv1.weight"].data_ptr()


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.b = nn.Linear(3, 3)
        self.b.weight = self.a.weight
        self.register_buffer("index", torch.arange(3), persistent=False)


def tied() -> nn.Module:
    return Tied()


def test_tied_parameters_stay_tied_and_unsaved_buffers_are_right() -> None:
    source = Tied()
    built = build(toy_spec(build="tests.test_construct:tied", layers={"a": "a"}), source.state_dict)
    assert built.a.weight is built.b.weight
    assert torch.equal(built.index, torch.arange(3))
    assert torch.equal(built.a.weight, source.a.weight)


def failing(state: dict[str, torch.Tensor], module: nn.Module) -> dict[str, torch.Tensor]:
    assert "block" in state, "no block"
    return state


def refusing(state: dict[str, torch.Tensor], module: nn.Module) -> dict[str, torch.Tensor]:
    if "net.weight" in state:
        raise ZooError("is a checkpoint of acme's net; use acme/net")
    return state


def test_whatever_a_plugins_function_raises_on_a_file_is_one_error_with_file_and_model() -> None:
    spec = toy_spec(convert="tests.test_construct:failing", weights=Weights(file="odd.safetensors"))
    with pytest.raises(
        CoverageError, match=r"(?s)^toy/net: the file 'odd.safetensors' fills 0 of.*:failing failed.*AssertionError: no block"
    ):
        build(spec, lambda: {"net.weight": torch.ones(2)})


@pytest.mark.parametrize("prefix", ["net.", "model.net."])
def test_a_file_that_a_plugin_knows_and_refuses_is_told_in_its_words(prefix: str) -> None:
    spec = toy_spec(convert="tests.test_construct:refusing", weights=Weights(file="odd.safetensors"))
    with pytest.raises(CoverageError) as caught:
        build(spec, lambda: {f"{prefix}weight": torch.ones(2)})
    assert str(caught.value) == "toy/net: the file 'odd.safetensors' is a checkpoint of acme's net; use acme/net"


def test_headless_leaves_torch_as_it_was() -> None:
    register = nn.Module.register_parameter
    with pytest.raises(KeyError), on_meta():
        raise KeyError
    assert nn.Module.register_parameter is register


def test_a_prefix_left_by_a_wrapper_is_taken_off() -> None:
    state = {f"module.{name}": tensor for name, tensor in ToyNet().state_dict().items()}
    build(toy_spec(), lambda: state)


class Wrapping(nn.Module):
    """A network with a part that is called as wrappers call theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Conv2d(3, 8, 3)
        self.tail = nn.Conv2d(8, 8, 3)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_a_part_that_is_called_as_wrappers_call_theirs_keeps_its_name(prefix: str) -> None:
    net = Wrapping()
    fitted = fit_state(Wrapping(), {f"{prefix}{name}": tensor for name, tensor in net.state_dict().items()}, toy_spec())
    assert all(torch.equal(fitted[name], tensor) for name, tensor in net.state_dict().items())


def test_partial_coverage_is_an_error_that_tells_the_share_and_the_first_names() -> None:
    state = ToyNet().state_dict()
    del state["bn1.weight"]
    state["conv1.weight"] = state["conv1.weight"][:4]
    with pytest.raises(CoverageError) as caught:
        build(toy_spec(), lambda: state)
    for fact in ("13 of 15", "87 %", "bn1.weight", "conv1.weight is (4, 3, 3, 3) in the file", "allow_partial"):
        assert fact in str(caught.value)


def test_partial_coverage_may_be_allowed_and_is_said(caplog: pytest.LogCaptureFixture) -> None:
    state = ToyNet().state_dict()
    del state["bn1.weight"]
    with caplog.at_level(logging.WARNING):
        built = build(toy_spec(), lambda: state, allow_partial=True)
    assert torch.equal(built.get_parameter("conv1.weight"), state["conv1.weight"])
    assert torch.equal(built.get_parameter("bn1.weight"), torch.ones(8))
    assert "14 of 15" in caplog.text


def test_weights_of_a_wrong_model_are_an_error() -> None:
    with pytest.raises(CoverageError, match=r"fills 0 of 15 tensors of ToyNet \(0 %\)"):
        build(toy_spec(), lambda: {"other.weight": torch.zeros(1)})


def test_half_precision_weights_get_the_dtype_of_the_model() -> None:
    state = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in ToyNet().state_dict().items()}
    assert build(toy_spec(), lambda: state).get_parameter("conv1.weight").dtype == torch.float32


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
def test_an_adapted_first_layer_answers_a_grey_picture_as_before(channels: int) -> None:
    weight = torch.randn(8, 3, 3, 3)
    grey = torch.randn(1, 1, 8, 8)
    before = nn.functional.conv2d(grey.expand(-1, 3, -1, -1), weight)
    after = nn.functional.conv2d(grey.expand(-1, channels, -1, -1), adapt_input(weight, channels))
    if channels != 2 and channels != 4:  # those repeat some channels more often than others
        assert torch.allclose(before, after, atol=1e-4)
    assert after.shape == before.shape


def test_input_channels_are_adapted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    state = ToyNet().state_dict()
    with caplog.at_level(logging.WARNING):
        built = build(toy_spec(options={"in_chans": 1}), lambda: state)
    assert torch.allclose(built.get_parameter("conv1.weight"), state["conv1.weight"].sum(1, keepdim=True))
    assert "from 3 to 1 input channels" in caplog.text


def not_a_module() -> object:
    return object()


def test_a_builder_that_returns_no_module_is_named() -> None:
    with pytest.raises(DeclarationError, match="not_a_module"):
        build(toy_spec(build="tests.test_construct:not_a_module"), None)
