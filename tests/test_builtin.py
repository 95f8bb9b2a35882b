"""The embedded backbone: declared like any other, small, intact, and better than random values."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import unicodedata
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors import safe_open

import zoo
import zoo.builtin
from zoo.builtin import GLYPHNET
from zoo.builtin.demo import load_digits, split_per_class
from zoo.registry.registry import Registry

ROOT = Path(__file__).resolve().parents[1]
FILE = Path(zoo.builtin.__file__).parent / "glyphnet.safetensors"


def script(name: str) -> ModuleType:
    """A module of scripts/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def glyphs() -> ModuleType:
    return script("glyphs")


@pytest.fixture(scope="module")
def classes(glyphs: ModuleType) -> tuple[str, ...]:
    return glyphs.choose_classes()  # type: ignore[no-any-return]


def embedding(x: np.ndarray, *, weights: bool | None) -> np.ndarray:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = zoo.get("zoo/glyphnet", weights=weights)
    pictures = torch.from_numpy(x)[:, None].float().div(255)
    pictures = torch.nn.functional.interpolate(pictures, size=32, mode="bicubic").clamp(0, 1)
    assert isinstance(GLYPHNET.inputs, zoo.Image)
    return backbone.features((pictures - GLYPHNET.inputs.mean[0]) / GLYPHNET.inputs.std[0]).mean((2, 3)).numpy()


def nearest_mean_accuracy(train: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray) -> float:
    means = np.stack([train[labels == c].mean(axis=0) for c in range(10)])
    distances = ((test[:, None] - means[None]) ** 2).sum(axis=-1)
    return float((distances.argmin(axis=1) == truth).mean())


def test_a_registry_with_the_core_alone_lists_the_backbone_and_the_heads() -> None:
    registry = Registry(plugins=[zoo.builtin], files=[])
    assert registry.names() == ["zoo/glyphnet"]
    assert registry.resolve("glyphnet").spec == GLYPHNET
    assert set(registry.heads()) == {"linear", "mlp", "tokens", "zero-shot"}


def test_declaring_the_backbone_imports_no_torch() -> None:
    code = "import sys, zoo.builtin; list(zoo.builtin.zoo_backbones()); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


def test_the_weights_are_small_intact_and_say_where_they_come_from() -> None:
    assert FILE.stat().st_size <= 2_000_000
    assert GLYPHNET.weights is not None
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == GLYPHNET.weights.sha256
    with safe_open(FILE, framework="pt") as file:
        told = file.metadata()
    assert told["license"] == GLYPHNET.weights.license == "apache-2.0"
    assert (ROOT / told["script"]).is_file()
    assert int(told["seed"]) >= 0


def test_the_declaration_matches_the_module() -> None:
    groups = zoo.get("zoo/glyphnet").groups
    assert groups.names == ("stem", "stage1", "stage2", "stage3")
    assert sum(p.numel() for p in groups.model.parameters()) == GLYPHNET.parameters
    assert groups.model.eval()(torch.zeros(2, 1, 32, 32)).shape == (2, GLYPHNET.features.dim, 4, 4)


def test_three_channels_of_a_grey_picture_give_the_features_of_one() -> None:
    x = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    one, three = (zoo.get("zoo/glyphnet", in_chans=channels).features(x.expand(-1, channels, -1, -1)) for channels in (1, 3))
    torch.testing.assert_close(three, one, rtol=1e-3, atol=1e-4)


def test_pretrained_features_separate_unseen_digits_far_better_than_random_ones() -> None:
    digits = load_digits()
    (train, labels), _ = split_per_class(digits.pool, seed=0)
    test, truth = digits.test
    pretrained, random = (
        nearest_mean_accuracy(embedding(train, weights=weights), labels, embedding(test, weights=weights), truth)
        for weights in (None, False)
    )
    assert pretrained > 0.88
    assert random < 0.7


def test_the_source_domain_holds_letters_and_nothing_that_looks_like_a_digit(classes: tuple[str, ...]) -> None:
    members = "".join(classes)
    assert {unicodedata.category(c) for c in members} <= {"Lu", "Ll", "Lo"}
    assert not set("0123456789OoIlЗОобδ") & set(members)
    assert len(members) == len(set(members))
    assert 400 < len(classes) < 600


def test_letters_that_look_alike_are_one_class(classes: tuple[str, ...]) -> None:
    label = {c: index for index, members in enumerate(classes) for c in members}
    assert label["A"] == label["Α"] == label["А"]  # Latin, Greek, Cyrillic
    assert label["c"] == label["C"]
    assert label["A"] != label["a"]


def test_the_distorted_pictures_depend_on_the_seed_alone(glyphs: ModuleType, classes: tuple[str, ...]) -> None:
    bank = glyphs.build_bank(("DejaVuSans",), classes[:20])

    def drawn(seed: int) -> torch.Tensor:
        pictures: torch.Tensor = glyphs.distort(bank.glyphs[:16], torch.Generator().manual_seed(seed))
        return pictures

    assert drawn(0).shape == (16, 1, 32, 32)
    assert drawn(0).min() >= 0
    assert drawn(0).max() <= 1
    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


def test_the_pretraining_script_gives_the_same_weights_for_the_same_seed(
    tmp_path: Path, glyphs: ModuleType, classes: tuple[str, ...]
) -> None:
    pretrain = script("pretrain_glyphnet")
    bank = glyphs.build_bank(("DejaVuSans", "DejaVuSerif"), classes[:12])
    digests = []
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        backbone, head = pretrain.pretrain(bank, seed=seed, steps=3, batch=16, every=0)
        assert 0 <= pretrain.accuracy(backbone, head, bank, seed=seed, batches=1) <= 1
        digests.append(pretrain.write(backbone, tmp_path / f"{name}.safetensors", seed=seed, steps=3))
    assert digests[0] == digests[1] != digests[2]
    # Also what zoo can load: every name and shape as the architecture has them.
    zoo.get("zoo/glyphnet", weights=tmp_path / "first.safetensors").build()
