"""Datasets of the user's own: what their items are decides, however they were made."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch.utils.data import Dataset

import zoo
from tests.engine.tiny import images, model
from zoo.errors import DataError, OptionError

PIXELS, LABELS = images()
RUN: dict[str, Any] = {"recipe": "full", "epochs": 2, "batch_size": 8, "quiet": True}


class Made(Dataset[Any]):
    """The images of ``images`` through a function, with their labels."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self.make = make

    def __len__(self) -> int:
        return len(PIXELS)

    def __getitem__(self, index: int) -> Any:
        return self.make(PIXELS[index]), LABELS[index]


def to_tensor(pixels: Any) -> torch.Tensor:
    return torch.from_numpy(pixels / 255.0).float().permute(2, 0, 1)


def standardised(pixels: Any) -> torch.Tensor:
    return (to_tensor(pixels) - 0.4) * 4


def darkened(pixels: Any) -> PIL.Image.Image:
    return PIL.Image.fromarray((pixels * np.random.uniform(0.3, 1)).astype(np.uint8))  # the numbers of a user's own augmentation


@pytest.fixture
def run(tmp_path: Any) -> Callable[..., zoo.Run]:
    return lambda given, data, **options: given.fit(data, options.pop("valid", False), **RUN | {"out": tmp_path / "run"} | options)


def test_float_tensors_in_the_unit_range_train_like_the_images_they_are(run: Callable[..., Any], tmp_path: Any) -> None:
    one, other = model(), model()
    run(one, Made(PIL.Image.fromarray), augment="strong", out=tmp_path / "a")
    run(other, Made(to_tensor), augment="strong", out=tmp_path / "b")
    assert np.array_equal(one.predict_proba(PIXELS), other.predict_proba(PIXELS))
    assert np.array_equal(one.predict_proba([to_tensor(pixels) for pixels in PIXELS]), one.predict_proba(PIXELS))


@pytest.mark.parametrize("stacked", [False, True])
def test_grey_tensors_are_embedded_like_the_equal_arrays(stacked: bool) -> None:
    grey = [pixels[:, :, 0] for pixels in PIXELS]
    tensors = [torch.from_numpy(one / 255.0).float() for one in grey]
    found = model().embed(torch.stack(tensors)[:, None] if stacked else tensors)
    assert np.array_equal(found, model().embed(grey))


def test_prepared_tensors_pass_and_the_model_says_so_of_files_later(
    run: Callable[..., Any], tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    trained = zoo.get("zoo/glyphnet").adapt(3)
    with caplog.at_level(logging.INFO, "zoo"):
        run(trained, Made(lambda pixels: standardised(pixels)[:1].repeat(1, 2, 2)))
    assert "predict from tensors made the same way" in caplog.text
    twin = zoo.load(tmp_path / "run")
    assert twin.inputs.ready_made  # type: ignore[union-attr]
    caplog.clear()
    dim = torch.full((1, 32, 32), 0.5)  # alone it would be taken for an image
    assert np.allclose(twin.predict_proba([dim]), torch.softmax(twin.eval()(dim[None]), 1).detach().numpy(), atol=1e-6)
    assert not caplog.text
    twin.predict(PIXELS[:1])
    assert "trained on float tensors that were prepared outside" in caplog.text


def test_options_without_effect_on_prepared_tensors_are_refused(run: Callable[..., Any]) -> None:
    with pytest.raises(OptionError, match=r"augment \(rand_augment, erase\): the data are float tensors"):
        run(model(), Made(standardised), augment="strong")
    run(model(), Made(standardised), mixup=0.2)  # mixes whatever the samples were made of


def test_a_resize_that_overshoots_leaves_an_image_and_a_prepared_tensor_is_told(caplog: pytest.LogCaptureFixture) -> None:
    net, tensors = model(), [to_tensor(pixels) for pixels in PIXELS[:3]]
    expected = net.predict_proba(tensors)
    brightest = int(tensors[2].argmax())
    caplog.clear()
    over = [*tensors[:2], tensors[2].flatten().index_fill(0, torch.tensor([brightest]), 1.004).view(3, 16, 16)]
    assert np.array_equal(net.predict_proba(over)[:2], expected[:2])
    assert "float tensors" not in caplog.text
    net.predict([standardised(PIXELS[0])])
    assert "float tensors outside [0, 1] are the network's inputs as they are" in caplog.text


def test_one_float_tensor_among_images_is_read_like_them() -> None:
    net = model()
    mixed = [*PIXELS[:5], to_tensor(PIXELS[5]), *PIXELS[6:]]
    assert np.array_equal(net.predict_proba(mixed), net.predict_proba(PIXELS))


def test_bands_as_tensors_are_normalised_like_bands_as_arrays() -> None:
    net = zoo.get("zoo/glyphnet").adapt(2, in_chans=6)
    bands = np.random.default_rng(0).random((2, 32, 32, 6)).astype(np.float32)
    tensors = [torch.from_numpy(one).permute(2, 0, 1) for one in bands]
    assert np.array_equal(net.predict_proba(tensors), net.predict_proba(bands))


def test_prepared_tensors_are_not_validated_by_images(run: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match="prepare both in the same way"):
        run(model(), Made(standardised), valid=(PIXELS, LABELS))


def test_one_dataset_is_prepared_as_a_whole_or_not_at_all(run: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match="prepare all of them or none"):
        run(model(), Made(to_tensor), valid=([torch.linspace(-1, 1, 768).view(3, 16, 16)], LABELS[:1]), monitor="loss")


def rarely(pixels: Any) -> Any:
    return PIL.Image.fromarray(pixels[:, ::-1] if torch.rand(1) < 0.02 else pixels)


@pytest.mark.parametrize("sees", [to_tensor, darkened, rarely])
def test_a_dataset_that_draws_is_not_computed_once(run: Callable[..., Any], caplog: pytest.LogCaptureFixture, sees: Any) -> None:
    result = run(model(), Made(sees), recipe="linear-probe", epochs=3, solve_head=False)
    assert len(result.history) == 3
    assert ("draws its samples anew" in caplog.text) == (sees is not to_tensor)


def test_the_frozen_part_sees_every_draw(tmp_path: Any) -> None:
    calls: list[int] = []

    def counted(pixels: Any) -> Any:
        calls.append(1)
        return darkened(pixels)

    model().fit(Made(counted), False, **RUN | {"recipe": "linear-probe", "epochs": 4, "out": tmp_path / "run"})
    assert len(calls) >= 4 * len(PIXELS)
