import re
from collections.abc import Sequence

import pytest
import torch
from torch import nn

import zoo
from tests.toy import ToyNet, toy_spec
from tests.toy_text import toy_text_spec
from tests.toy_tokenizer import ToyTokenizer
from zoo.registry.registry import Registry, use_registry
from zoo.testing import (
    Check,
    Subject,
    backbone_checks,
    check_backbone,
    frozen,
    licence_is_stated,
    tokenizer_encodes_as_agreed,
    tokenizer_returns_after_saving,
    tokens_are_the_same_in_every_process,
)


class Leaky(ToyNet):
    """Wrong in ways that flags would not show."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = x + nn.functional.dropout(self.blocks[1](x), 0.5, training=True)
        return self.blocks[0](x).flatten(1)


def leaky(in_chans: int = 3) -> Leaky:
    return Leaky(in_chans=in_chans)


class Idle(ToyNet):
    """One bias gets no gradient at all, whatever is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1.register_parameter("spare", nn.Parameter(torch.zeros(3)))


class Detached(ToyNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x))).detach()
        return self.blocks[1](self.blocks[0](x))


class Words(nn.Module):
    """A text backbone in the shape of the contract; its layers return tuples, as those of transformers do."""

    class Layer(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.linear = nn.Linear(width, width)

        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, None]:
            weights = mask[:, None, :] / mask.sum(1)[:, None, None]
            return x + torch.tanh(self.linear(weights @ x)), None

    def __init__(self, careless: bool = False) -> None:
        super().__init__()
        self.careless = careless
        self.words = nn.Embedding(100, 8)
        self.layers = nn.ModuleList(self.Layer(8) for _ in range(2))

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        mask = batch["attention_mask"].float()
        x = self.words(batch["input_ids"])
        for layer in self.layers:
            x, _ = layer(x, torch.ones_like(mask) if self.careless else mask)
        return x


class Volumes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).relu()


class Forgetful(ToyTokenizer):
    """Encodes differently from a folder without its settings, which it does not save."""

    def __init__(self, files: str) -> None:
        self.files = files

    def encode(self, texts: Sequence[str | tuple[str, str]], max_length: int) -> list[dict[str, list[int]]]:
        return super().encode(texts, max_length if self.files == "here" else max_length - 1)


class Endless(ToyTokenizer):
    def encode(self, texts: Sequence[str | tuple[str, str]], max_length: int) -> list[dict[str, list[int]]]:
        return super().encode(texts, 1000)


def forgetful(files: str) -> Forgetful:
    return Forgetful(files)


def endless(files: str) -> Endless:
    return Endless()


def idle() -> Idle:
    return Idle()


def detached() -> Detached:
    return Detached()


def words(careless: bool = False) -> Words:
    return Words(careless)


def volumes() -> Volumes:
    return Volumes()


WORDS = {
    "build": "tests.test_testing:words",
    "layers": {"words": "words", "layer": "layers.*"},
    "inputs": zoo.Text(max_length=32),
    "features": zoo.Features(dim=8, layout="BND"),
}
VOLUMES = {
    "build": "tests.test_testing:volumes",
    "layers": {"all": "conv"},
    "inputs": zoo.Volume(size=(8, 6, 4)),
    "features": zoo.Features(dim=4, layout="BCDHW"),
}


class Plugin:
    @zoo.hookimpl
    def zoo_backbones(self) -> list[zoo.BackboneSpec]:
        return [
            toy_spec(),
            toy_spec("toy/leaky", build="tests.test_testing:leaky"),
            toy_spec("toy/idle", build="tests.test_testing:idle"),
            toy_spec("toy/detached", build="tests.test_testing:detached"),
            toy_spec("toy/unlicensed", weights=zoo.Weights(package="tests")),
            toy_spec("toy/unknown", weights=zoo.Weights(repo="acme/net")),
            toy_spec("toy/words", **WORDS),
            toy_spec("toy/careless", **WORDS, options={"careless": True}),
            toy_text_spec(),
            toy_text_spec("toy/hashed", inputs=zoo.Text(max_length=24, tokenizer="tests.toy_tokenizer:hashing")),
            toy_text_spec("toy/hashed-words", inputs=zoo.Text(max_length=24, tokenizer="tests.toy_tokenizer:hashing_words")),
            toy_text_spec("toy/unsaved", inputs=zoo.Text(max_length=24, tokenizer="tests.test_testing:forgetful", files="here")),
            toy_text_spec("toy/long", inputs=zoo.Text(max_length=24, tokenizer="tests.test_testing:endless")),
            toy_spec("toy/volumes", **VOLUMES),
        ]


@pytest.fixture(autouse=True)
def plugins() -> object:
    use_registry(Registry(plugins=[zoo.builtin, Plugin()], files=[]))
    yield
    use_registry()


def test_a_backbone_that_keeps_the_contract_passes_every_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.testing.listing_imports_no_torch", lambda subject: None)  # this test module imports torch itself
    assert check_backbone("toy/net") == len(backbone_checks()) == 12


@pytest.mark.parametrize(("name", "checks", "size"), [("toy/words", 16, None), ("toy/volumes", 12, None), ("toy/volumes", 12, (4, 4, 4))])
def test_texts_and_volumes_pass_as_images_do(name: str, checks: int, size: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.testing.listing_imports_no_torch", lambda subject: None)
    assert check_backbone(name, size=size) == checks  # type: ignore[arg-type]


def failures(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("zoo.testing.listing_imports_no_torch", lambda subject: None)
    with pytest.raises(AssertionError) as caught:
        check_backbone(name)
    return str(caught.value)


def test_a_tokenizer_that_hashes_and_raises_fails_the_kit(monkeypatch: pytest.MonkeyPatch) -> None:
    told = failures("toy/hashed", monkeypatch)
    assert "fails 3 of 16 checks (kit 3)" in told
    assert "tokenizer_encodes_as_agreed: no words" in told
    assert "tokens_are_the_same_in_every_process: no words" in told
    assert "tokenizer_returns_after_saving: no words" in told


@pytest.mark.parametrize(
    ("check", "name", "told"),
    [
        (tokens_are_the_same_in_every_process, "toy/hashed-words", r"tokens differ between processes; Python's hash\(\)"),
        (tokenizer_returns_after_saving, "toy/unsaved", "texts have other tokens after saving"),
        (tokenizer_encodes_as_agreed, "toy/long", "a text has 50 tokens where 12 are the maximum"),
    ],
)
def test_a_tokenizer_that_breaks_its_contract_is_found(check: Check, name: str, told: str) -> None:
    check(Subject("toy/text"))
    with pytest.raises(AssertionError, match=told):
        check(Subject(name))


def test_a_batch_of_texts_holds_a_padded_sample() -> None:
    batch = Subject("toy/words").batch(3)
    assert isinstance(batch, dict)
    assert batch.keys() == {"input_ids", "attention_mask"}
    assert {value.dtype for value in batch.values()} == {torch.int64}
    assert batch["attention_mask"].sum(1).tolist() == [16, 16, 8]


def test_features_that_depend_on_padding_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "padding_changes_nothing" in failures("toy/careless", monkeypatch)


def test_a_parameter_that_never_gets_a_gradient_is_the_networks_own_fault(caplog: pytest.LogCaptureFixture) -> None:
    frozen.frozen_prefix_stands_still_and_the_rest_moves(Subject("toy/idle"))
    assert "1 parameter never gets a gradient: conv1.spare" in caplog.text


def test_a_whole_group_without_gradient_is_a_fault() -> None:
    with pytest.raises(AssertionError, match="no parameter of these groups ever gets a gradient: stem"):
        frozen.frozen_prefix_stands_still_and_the_rest_moves(Subject("toy/detached"))


def test_an_unknown_licence_needs_a_publisher_to_ask(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(AssertionError, match="name no publisher"):
        licence_is_stated(Subject("toy/unlicensed"))
    licence_is_stated(Subject("toy/unknown"))
    assert "acme/net does not state it" in caplog.text


def test_every_fault_of_a_backbone_is_listed() -> None:
    with pytest.raises(AssertionError) as caught:
        check_backbone("toy/leaky")
    message = str(caught.value)
    assert re.search(r"toy/leaky fails \d of 12 checks", message)
    for fact in ("listing_imports_no_torch", "features_are_as_declared: forward returns (2, 512)", "stem, stage.1, stage.0", "differ"):
        assert fact in message
