"""The steps in which the values of a model came about are told by the model and by what it is saved as."""

from __future__ import annotations

from pathlib import Path

import pytest

import zoo
from tests.engine.tiny import images
from tests.test_cli import Done, run  # noqa: F401  # a fixture
from zoo.declare import Features, Image, Origin
from zoo.select import soup
from zoo.transfer import Contrastive


def fitted(backbone: zoo.Backbone, out: Path, **options: object) -> zoo.TaskModel:
    model = backbone.adapt(3)
    model.fit(images(), False, out=out, quiet=True, **options)
    return model


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("origins") / "first"
    fitted(zoo.get("zoo/glyphnet"), folder, recipe="linear-probe")
    return folder


def test_every_training_is_a_step(first: Path, tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    second = fitted(zoo.get(first), tmp_path / "second", objective=Contrastive(), epochs=3)
    assert [origin.step for origin in second.origins] == ["weights", "fit", "fit"]
    assert second.origins[0].source.endswith("of the package zoo.builtin")
    assert second.origins[1] == Origin(
        step="fit", name="linear-probe", source="the data in memory", samples=24, sha256=second.origins[1].sha256
    )
    assert second.origins[2].name == "contrastive"
    assert zoo.load(tmp_path / "second").origins == second.origins
    card = (tmp_path / "second" / "README.md").read_text()
    assert "2. trained by linear-probe on 24 samples of the data in memory\n3. trained by contrastive on 24 samples" in card
    shown: Done = run("show", tmp_path / "second")
    steps = [line.removeprefix("  origins").strip() for line in shown.out.splitlines() if "1. " in line or "2. " in line or "3. " in line]
    assert [step[:3] for step in steps] == ["1. ", "2. ", "3. "]
    assert steps[1].startswith("2. trained by linear-probe on 24 samples")


def test_a_soup_is_a_step(first: Path, tmp_path: Path) -> None:
    fitted(zoo.get("zoo/glyphnet"), tmp_path / "other", recipe="linear-probe")
    merged = soup([first, tmp_path / "other"], images(12, seed=1), out=tmp_path / "soup")
    assert merged.model.origins[-1] == Origin(step="mean", name="1 further run")


def test_other_weights_for_a_saved_model_begin_a_chain_of_their_own(first: Path) -> None:
    assert [origin.step for origin in zoo.get(first, weights=False).adapt(2).origins] == ["random"]
    given = zoo.get(first, weights=first / "model.safetensors").adapt(2)
    assert [origin.step for origin in given.origins] == ["weights"]
    assert given.origins[0].source == "model.safetensors"


def test_random_values_and_networks_of_ones_own_are_told() -> None:
    import torch

    assert zoo.get("zoo/glyphnet", weights=False).adapt(2).origins == (Origin(step="random", name="zoo/glyphnet"),)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
    own = zoo.wrap(network, inputs=Image(size=8), features=Features(dim=4, layout="BCHW"))
    assert [origin.step for origin in own.adapt(2).origins] == ["own"]


def test_training_data_are_named_without_the_folders_above_them(tmp_path: Path) -> None:
    from PIL import Image as Pictures

    for label in ("a", "b"):
        (tmp_path / "secret" / "scans" / label).mkdir(parents=True)
        for shade in range(4):
            Pictures.new("RGB", (32, 32), (60 * shade, 0, 200 if label == "a" else 0)).save(
                tmp_path / "secret/scans" / label / f"{shade}.png"
            )
    model = zoo.get("zoo/glyphnet").adapt(2)
    model.fit(tmp_path / "secret" / "scans", False, recipe="linear-probe", out=tmp_path / "run", quiet=True)
    assert model.origins[-1].source == "scans"
    assert "secret" not in (tmp_path / "run" / "config.json").read_text()
