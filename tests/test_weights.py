from pathlib import Path

import pytest
import safetensors.torch
import torch

from zoo.declare import Weights
from zoo.errors import WeightsError, WeightsNotFoundError
from zoo.util.file_digest import file_digest
from zoo.weights.load import read
from zoo.weights.locate import locate


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({"a": torch.arange(6.0).reshape(2, 3)}, path)
    return path


def test_a_file_is_read_as_it_was_written(file: Path) -> None:
    assert torch.equal(read(file)["a"], torch.arange(6.0).reshape(2, 3))


def test_a_pinned_file_passes_and_a_changed_one_is_refused(file: Path) -> None:
    pinned = Weights(file=str(file), sha256=file_digest(file))
    assert locate(pinned, "toy/net") == file
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=r"toy/net.*sha256"):
        locate(pinned, "toy/net")


def test_a_folder_means_the_model_in_it(file: Path) -> None:
    assert locate(Weights(file=str(file.parent)), "toy/net") == file


def test_a_missing_file_is_told_with_the_nearest_name(file: Path) -> None:
    with pytest.raises(WeightsNotFoundError, match=r"did you mean '.*model\.safetensors'"):
        locate(Weights(file=str(file.with_name("modle.safetensors"))), "toy/net")


@pytest.mark.parametrize("name", ["model.pth", "model.bin", "model.ckpt"])
def test_a_pickle_without_tensors_is_refused_and_runs_nothing(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (marker,)

    torch.save(Payload(), tmp_path / name)
    with pytest.raises(WeightsError, match=r"touch|Path|getattr"):
        locate(Weights(file=str(tmp_path / name)), "toy/net")
    (tmp_path / name).rename(tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="not a readable safetensors"):
        read(tmp_path / "x.safetensors")
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"<html>", b"\xff" * 64])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        read(path, "toy/net")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_by_tensor(tmp_path: Path, value: float) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({"good": torch.ones(2), "bad": torch.tensor([1.0, value])}, path)
    with pytest.raises(WeightsError, match="bad"):
        read(path)


def test_weights_that_are_not_on_the_hub_say_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.weights.urls.transfer.PAUSE", 0.0)
    with pytest.raises(WeightsNotFoundError, match=r"https://example\.org/x\.pth"):
        locate(Weights(url="https://example.org/x.pth"), "toy/net")


def test_a_hub_that_cannot_be_reached_names_repository_and_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsNotFoundError, match=r"toy/net: cannot get acme/net@v1/model\.safetensors"):
        locate(Weights(repo="acme/net", revision="v1"), "toy/net")
