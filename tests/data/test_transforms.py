from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

import zoo
from tests.data.make import image, photo
from zoo.data.images.augment import Augment, erase, mix_batch, random_box
from zoo.data.images.transforms import eval_transform, train_transform
from zoo.declare import Image
from zoo.errors import CorruptInputError, DataError, OptionError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = [(60, 40), (40, 60), (33, 33), (31, 97), (500, 333), (20, 25)]


def like(size: Any, **options: Any) -> Image:
    return Image(size=size, mean=MEAN, std=STD, **options)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("size", "crop"), [(32, 1.0), (32, 0.875), (28, 0.9), (30, 0.95)])
def test_evaluation_is_bit_equal_to_torchvision(interpolation: str, size: int, crop: float) -> None:
    from torchvision import transforms as tv

    mode = tv.InterpolationMode(interpolation)
    theirs = tv.Compose([tv.Resize(int(size / crop), mode), tv.CenterCrop(size), tv.ToTensor(), tv.Normalize(MEAN, STD)])
    ours = eval_transform(like(size, interpolation=interpolation, crop=crop))
    for shape in SIZES:
        picture = photo(shape)
        assert torch.equal(ours(picture, random.Random(0)), theirs(picture)), shape


@pytest.mark.parametrize("size", [(224, 224), (160, 160), (192, 256)])
@pytest.mark.parametrize("crop", [0.875, 0.9, 0.95, 1.0])
def test_evaluation_is_bit_equal_to_timm_on_real_photos(shared: Path, size: tuple[int, int], crop: float) -> None:
    data = pytest.importorskip("timm.data")
    theirs = data.create_transform((3, *size), interpolation="bicubic", mean=MEAN, std=STD, crop_pct=crop)
    ours = eval_transform(like(size, crop=crop))
    for path in sorted((shared / "data/images/hymenoptera/val/ants").iterdir())[:4]:
        with PIL.Image.open(path) as picture:
            difference = ours(str(path), random.Random(0)) - theirs(picture.convert("RGB"))
        # Where height and width differ, timm rounds the long side another way: at most one pixel of resampling.
        assert difference.abs().max() == 0 if size[0] == size[1] else difference.abs().mean() < 0.2


@pytest.mark.parametrize("name", ["resnet50.imagenet1k_v2", "efficientnet_b1.imagenet1k_v1", "vit_b_16.imagenet1k_swag_e2e_v1"])
def test_evaluation_is_bit_equal_to_the_presets_of_torchvisions_weights(name: str) -> None:
    pytest.importorskip("zoo_torchvision")
    from torchvision.models import get_model_weights

    architecture, _, tag = name.partition(".")
    preset = get_model_weights(architecture)[tag.upper()].transforms()
    picture = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (411, 533, 3), dtype=np.uint8))
    inputs = zoo.get(f"torchvision/{name}").spec.inputs
    assert isinstance(inputs, Image)
    assert torch.equal(eval_transform(inputs)(picture, random.Random(0)), preset(picture))


def test_a_squashed_evaluation_keeps_all_of_the_image() -> None:
    from torchvision import transforms as tv

    theirs = tv.Compose([tv.Resize((24, 32), tv.InterpolationMode.BICUBIC), tv.ToTensor(), tv.Normalize(MEAN, STD)])
    ours, covering = eval_transform(like((24, 32), squash=True)), eval_transform(like((24, 32)))
    for shape in SIZES:
        assert torch.equal(ours(photo(shape), random.Random(0)), theirs(photo(shape))), shape
    assert not torch.equal(ours(photo((31, 97)), random.Random(0)), covering(photo((31, 97)), random.Random(0)))
    bands = Image(size=8, mean=(0.0,) * 4, std=(1.0,) * 4, squash=True)
    whole = torch.zeros(4, 16, 32)
    whole[:, :, :8] = 1  # the left quarter, which a crop of the centre would leave out
    found = eval_transform(bands)(whole.mul(255).to(torch.uint8), random.Random(0))
    assert found.shape == (4, 8, 8)
    assert found[:, :, 0].min() > 0.9


def test_evaluation_decodes_a_large_jpeg_in_full(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    photo((1600, 1200)).save(path, quality=92)
    transform = eval_transform(like(64))
    with PIL.Image.open(path) as picture:
        picture.load()
        assert torch.equal(transform(str(path), random.Random(0)), transform(picture, random.Random(0)))


def test_a_grey_declaration_gives_one_channel() -> None:
    grey = Image(size=8, mean=(0.5,), std=(0.25,))
    x = eval_transform(grey)(photo((20, 16)), random.Random(0))
    assert (tuple(x.shape), x.dtype) == ((1, 8, 8), torch.float32)
    assert tuple(train_transform(grey, Augment(rand_augment=0))(photo((20, 16)), random.Random(0)).shape) == (1, 8, 8)


def test_training_repeats_with_the_same_random_numbers_only() -> None:
    transform = train_transform(like(24), Augment(erase=0.5))
    first, again, other = (transform(photo((60, 40)), random.Random(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_no_augmentation_is_the_evaluation_transform() -> None:
    inputs = like(24, crop=0.9)
    assert train_transform(inputs, Augment.none()) == eval_transform(inputs)
    assert train_transform(inputs, Augment(scale=(1, 1), flip=0, jitter=0, mixup=0.2)) == eval_transform(inputs)


@pytest.mark.parametrize("size", [(100, 80), (10, 300), (1, 1), (3, 500)])
def test_crops_lie_inside_and_keep_their_share_and_shape(size: tuple[int, int]) -> None:
    augment, rng = Augment(scale=(0.2, 0.8)), random.Random(0)
    for _ in range(200):
        left, upper, right, lower = random_box(size, augment, rng)
        assert 0 <= left < right <= size[0]
        assert 0 <= upper < lower <= size[1]
        if size == (100, 80):
            assert 0.19 < (right - left) * (lower - upper) / 8000 < 0.81
            assert 0.7 < (right - left) / (lower - upper) < 1.4


def test_crops_have_the_distribution_of_torchvision() -> None:
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    rng, picture = random.Random(0), torch.zeros(1, 120, 90)
    ours = np.array([random_box((90, 120), Augment(), rng) for _ in range(4000)])
    boxes = (RandomResizedCrop.get_params(picture, [0.35, 1.0], [3 / 4, 4 / 3]) for _ in range(4000))
    theirs = np.array([(left, top, left + width, top + height) for top, left, height, width in boxes])
    assert np.abs(ours.mean(0) - theirs.mean(0)).max() < 1.5
    assert np.abs(ours.std(0) - theirs.std(0)).max() < 1.5


def test_a_flip_is_a_mirror_image() -> None:
    inputs = like(16)
    still = {"scale": (0.999, 1.0), "ratio": (1.0, 1.0), "jitter": 0.0}
    always, never = (train_transform(inputs, Augment(flip=flip, **still))(photo((16, 16)), random.Random(0)) for flip in (1.0, 0.0))
    plain = eval_transform(inputs)(photo((16, 16)), random.Random(0))
    assert torch.equal(always.flip(-1), plain) or (always.flip(-1) - plain).abs().mean() < 0.2
    assert (never - plain).abs().mean() < 0.2 < (always - plain).abs().mean()


def test_jitter_scales_brightness_within_its_bounds() -> None:
    flat = PIL.Image.new("RGB", (8, 8), (100, 100, 100))
    transform = train_transform(Image(size=8, mean=(0.0,) * 3, std=(1.0,) * 3), Augment(jitter=0.2, flip=0))
    values = {round(float(transform(flat, random.Random(seed)).mean()) * 255) for seed in range(200)}
    assert 78 <= min(values) < 84
    assert 116 < max(values) <= 122


def test_a_large_jpeg_is_not_enlarged_again_after_reduced_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.jpg"
    photo((1600, 1200)).save(path)
    seen = []
    resize = PIL.Image.Image.resize
    monkeypatch.setattr(
        PIL.Image.Image,
        "resize",
        lambda self, size, *rest, box=None: (seen.append((self.size, box)), resize(self, size, *rest, box=box))[1],
    )
    transform = train_transform(like(64), Augment())
    for seed in range(100):
        transform(str(path), random.Random(seed))
    assert {size for size, _ in seen} == {(200, 150)}
    assert min(min(box[2] - box[0], box[3] - box[1]) for _, box in seen) >= 64


def test_rand_augment_leaves_the_random_state_of_torch_alone() -> None:
    transform = train_transform(like(24), Augment(rand_augment=9))
    before = torch.get_rng_state()
    pictures = [transform(photo((60, 40)), random.Random(seed)) for seed in (1, 1, 2)]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[0], pictures[2])


def test_erasing_sets_one_rectangle_to_the_mean() -> None:
    shares = []
    for seed in range(50):
        x = erase(torch.ones(3, 40, 40), random.Random(seed))
        rows, columns = torch.nonzero(x[0] == 0, as_tuple=True)
        assert (x == 0).sum() == 3 * len(rows)
        assert len(rows) == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
        shares.append(len(rows) / 1600)
    assert 0.01 < min(shares) < 0.1
    assert 0.25 < max(shares) < 0.36


@pytest.mark.parametrize("augment", [Augment(mixup=0.4), Augment(cutmix=1.0), Augment(mixup=0.4, cutmix=1.0)])
def test_mixing_moves_targets_as_much_as_pixels(augment: Augment) -> None:
    # Sample k is white noise of class k's channel only, so the share of each channel is the share of each class.
    x = torch.eye(3)[:, :, None, None].expand(3, 3, 32, 32).clone()
    y = torch.eye(3)
    kept = x.clone()
    for seed in range(20):
        mixed, soft = mix_batch(x, y, augment, random.Random(seed))
        assert torch.allclose(mixed.mean(dim=(2, 3)), soft, atol=1e-5)
        assert torch.allclose(soft.sum(1), torch.ones(3))
    assert torch.equal(x, kept)


def test_mixing_is_off_unless_asked_for() -> None:
    x, y = torch.rand(4, 3, 8, 8), torch.eye(4)
    assert mix_batch(x, y, Augment(), random.Random(0))[0] is x


def test_cutmix_pastes_a_box_and_mixup_blends() -> None:
    x = torch.stack([torch.zeros(1, 16, 16), torch.ones(1, 16, 16)])
    cut = {
        value for seed in range(10) for value in mix_batch(x, torch.eye(2), Augment(cutmix=1.0), random.Random(seed))[0].unique().tolist()
    }
    blend = {
        value for seed in range(10) for value in mix_batch(x, torch.eye(2), Augment(mixup=1.0), random.Random(seed))[0].unique().tolist()
    }
    assert cut == {0.0, 1.0}
    assert len(blend) > 4


def test_float_tensors_pass_through_after_a_check() -> None:
    x = torch.randn(3, 16, 16)
    for transform in (eval_transform(like(16)), train_transform(like(16), Augment())):
        assert torch.equal(transform(x, random.Random(0)), x)
        assert transform(x.double(), random.Random(0)).dtype == torch.float32
        with pytest.raises(DataError, match=r"\(3, 8, 8\).*\(3, 16, 16\)"):
            transform(torch.randn(3, 8, 8), random.Random(0))
        x[0, 0, 0] = float("nan")
        with pytest.raises(CorruptInputError, match="1 values that are not finite"):
            transform(x, random.Random(0))
        x[0, 0, 0] = 0


def test_transforms_survive_pickling() -> None:
    for transform in (eval_transform(like(16)), train_transform(like(16), Augment(erase=1.0))):
        again = pickle.loads(pickle.dumps(transform))
        assert again == transform
        assert torch.equal(again(image(), random.Random(3)), transform(image(), random.Random(3)))


def test_a_tensor_may_be_written_to() -> None:
    with torch.no_grad():
        eval_transform(like(8))(image(), random.Random(0)).add_(1)


def test_faults_of_an_augmentation_are_told_at_once() -> None:
    with pytest.raises(OptionError) as caught:
        Augment(scale=(0.0, 1.0), ratio=(2.0, 1.0), flip=1.5, mixup=-1, rand_augment=31)
    assert all(word in str(caught.value) for word in ("5 fault", "scale", "ratio", "flip", "mixup", "rand_augment"))
