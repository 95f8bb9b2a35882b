"""Row W10 of reliability.md: a saved model that computes something else than when it was saved is noticed."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import zoo
import zoo.saved.reference_outputs as reference
from tests.test_cli import Done, run  # noqa: F401  # a fixture
from tests.toy_text import ToyTextPlugin
from zoo.declare import Features, Image, Volume
from zoo.registry.registry import Registry, use_registry
from zoo.util.file_digest import file_digest

State = dict[str, Tensor]


def saved(folder: Path, seed: int = 0) -> Path:
    model = zoo.get("zoo/glyphnet", weights=False).adapt(3, seed=seed)
    with torch.no_grad():
        model.head.get_parameter("linear.weight").normal_(generator=torch.Generator().manual_seed(seed))
    return model.save(folder)


def rewritten(folder: Path, change: Callable[[State], State]) -> Path:
    """Exchange the values of a saved model, and the digest with them, as a script that copies the wrong file would."""
    path = folder / "model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in change(load_file(path)).items()}, path)
    edited(folder, sha256=file_digest(path))
    return folder


def edited(folder: Path, **fields: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["zoo"] |= fields
    (folder / "config.json").write_text(json.dumps(config))


def shuffled(state: State) -> State:
    """Read the channels of a picture in the other order."""
    name = next(name for name, tensor in state.items() if tensor.ndim == 4)
    return state | {name: state[name].flip(0)}


def test_the_doctor_finds_wrong_values_of_the_right_shapes(tmp_path: Path, run: Callable[..., Done]) -> None:  # noqa: F811
    good = saved(tmp_path / "good")
    other = load_file(saved(tmp_path / "other", seed=1) / "model.safetensors")
    changes: dict[str, Callable[[State], State]] = {
        "another model": lambda state: other,
        "shuffled channels": shuffled,
        "classes in another order": lambda state: {
            name: value.flip(0) if name.startswith("head") else value for name, value in state.items()
        },
        "one head": lambda state: state | {name: value for name, value in other.items() if name.startswith("head")},
    }
    wrong = {name: rewritten(shutil.copytree(good, tmp_path / name), change) for name, change in changes.items()}
    earlier = shutil.copytree(good, tmp_path / "earlier")
    edited(earlier, reference_outputs=[])
    done = run("doctor", "--json", good, earlier, tmp_path / "goood", *wrong.values())
    rows = {Path(row["path"]).name: row for row in done.json["models"]}
    assert done.code == 1
    assert rows.pop("good")["difference"] < 1e-6
    assert rows.pop("earlier")["state"] == "it opens; there are no outputs to compare: it was saved without, or its outputs are random"
    assert "did you mean" in rows.pop("goood")["fault"]
    assert [name for name, row in rows.items() if "outputs for a fixed input differ" in row["fault"]] == list(changes)


def test_a_library_that_changed_is_told_at_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = saved(tmp_path / "model")
    prepared = reference.eval_transform
    monkeypatch.setattr(reference, "eval_transform", lambda inputs: lambda source, rng: prepared(inputs)(source, rng).roll(3, 1))
    with caplog.at_level(logging.WARNING, "zoo"):
        zoo.load(folder)  # the versions are the same, so nothing is computed
        assert not caplog.messages
        versions = json.loads((folder / "config.json").read_text())["zoo"]["versions"]
        edited(folder, versions=versions | {"pillow": "1.0", "python": "3.0"})
        zoo.load(folder)
    assert len(caplog.messages) == 1
    assert "predicts something else than when it was saved" in caplog.messages[0]
    assert "pillow 1.0 (now " in caplog.messages[0]
    assert "python" not in caplog.messages[0]


def test_another_version_that_computes_the_same_is_not_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = saved(tmp_path / "model")
    edited(folder, versions={"pillow": "1.0", "a-plugin-that-is-gone": "2.0"})
    with caplog.at_level(logging.WARNING, "zoo"):
        zoo.load(folder)
    assert not caplog.messages


class Noisy(torch.nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean((2, 3)) + 100 * torch.rand(len(x), 1)


def test_a_model_that_gives_no_such_outputs_any_more_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    model = zoo.get("zoo/glyphnet", weights=False).adapt(3)
    saved = reference.reference_outputs(model)
    assert reference.difference(model, saved[:2]) == float("inf")
    monkeypatch.setattr(reference, "eval_transform", lambda inputs: lambda source, rng: 1 / 0)
    assert reference.difference(model, saved) == float("inf")


def test_a_network_that_draws_random_numbers_is_not_accused(tmp_path: Path) -> None:
    layers = {"stem": ["0"], "noise": ["1"]}
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), Noisy(3, 3, 1))
    model = zoo.wrap(network, inputs=Image(size=8), layers=layers, features=Features(dim=3, layout="BD")).adapt(2)
    assert reference.difference(model, reference.reference_outputs(model)) is None


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_images_of_every_number_of_channels_have_outputs(channels: int) -> None:
    model = zoo.get("zoo/glyphnet", weights=False).adapt(2, in_chans=channels).train()
    state = torch.random.get_rng_state()
    assert len(reference.reference_outputs(model)) == 2
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), state)


def test_texts_and_volumes_have_outputs() -> None:
    use_registry(Registry(plugins=[zoo.builtin, ToyTextPlugin()], files=[]))
    try:
        words = zoo.get("toy/text", weights=False).adapt(2, task="token-classification")
        assert len(reference.reference_outputs(words)) == reference._OUTPUTS
        assert len(reference.reference_outputs(zoo.get("toy/text", weights=False).adapt(2))) == 2
    finally:
        use_registry()
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3), torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten())
    inputs = Volume(size=8, spacing=None)
    wrapped = zoo.wrap(network, inputs=inputs, layers={"stem": ["0"]}, features=Features(dim=4, layout="BD"))
    assert len(reference.reference_outputs(wrapped.adapt(2))) == 2
