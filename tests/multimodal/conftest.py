"""The toy backbones, a dual encoder that was trained on colours, and a folder of images, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import zoo.builtin
from tests.toy import ToyPlugin
from tests.toy_pair import PairPlugin, pair_spec, pretrained
from tests.toy_text import ToyTextPlugin
from zoo.models.backbone import Backbone
from zoo.registry.registry import Registry, use_registry


@pytest.fixture(scope="session")
def tower_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of both towers in one file, as CLIP is published."""
    return pretrained(tmp_path_factory.mktemp("towers") / "model.safetensors")


@pytest.fixture(autouse=True)
def _toys() -> Iterator[None]:
    use_registry(Registry(plugins=[zoo.builtin, PairPlugin(), ToyPlugin(), ToyTextPlugin()], files=[]))
    yield
    use_registry()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the images of tables."""
    return tmp_path_factory.mktemp("table")


@pytest.fixture
def encoder(tower_file: Path) -> Backbone:
    """The trained dual encoder."""
    return Backbone(pair_spec(tower_file))
