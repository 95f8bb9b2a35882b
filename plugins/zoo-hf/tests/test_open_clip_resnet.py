"""The ResNet of CLIP in open_clip's layout: its parts by hand, other sizes of images, and what is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from open_clip_kinds import KINDS, fill, pictures
from torch.nn import functional
from zoo_hf.open_clip_own import own_tower, own_width
from zoo_hf.open_clip_resnet import OwnResNet

VISION: dict[str, Any] = KINDS["resnet"]["vision_cfg"]


def made(projection: int = 12) -> OwnResNet:
    tower, faults = own_tower(VISION, 12, quick_gelu=False)
    assert not faults
    assert own_width(tower) == 256
    return fill(OwnResNet(tower, (64, 64), projection), "visual.")  # type: ignore[return-value]  # the same module


def test_its_pooling_is_attention_of_the_mean_of_all_positions() -> None:
    net, pool = made(), made().attnpool
    seen: list[torch.Tensor] = []
    net.layer4.register_forward_hook(lambda module, given, found: seen.append(found))
    with torch.no_grad():
        found = net(pictures(64))
        tokens = seen[0].flatten(2).transpose(1, 2)  # (2, 4, 256)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + pool.positional_embedding
        query, keys, values = pool.q_proj(tokens[:, 0]), pool.k_proj(tokens), pool.v_proj(tokens)
        parts = []
        for head in range(16):
            own = slice(16 * head, 16 * head + 16)
            shares = torch.einsum("bd,bnd->bn", query[:, own], keys[..., own]).div(4).softmax(1)
            parts.append(torch.einsum("bn,bnd->bd", shares, values[..., own]))
        torch.testing.assert_close(found, pool.c_proj(torch.cat(parts, 1)), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(made(0)(pictures(64)), torch.cat(parts, 1), rtol=1e-4, atol=1e-5)  # before the projection


def test_images_of_another_size_have_resized_places() -> None:
    net = made()
    with torch.no_grad():
        small = net(pictures(64))
        large = net(functional.interpolate(pictures(64), scale_factor=2, mode="bilinear"))
    assert large.shape == small.shape
    assert functional.cosine_similarity(small, large).min() > 0.5
    assert not torch.equal(small, large)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"layers": [1, 2, 0, 1]}, r"layers is \[1, 2, 0, 1\]; a ResNet has the numbers of blocks of four stages"),
        ({"width": 9}, "width is 9; it is even"),
        ({"head_width": 24}, "heads of 24 divide 32 times as much"),
        ({"image_size": 65}, "image_size is 65; of a ResNet it is a multiple of 32"),
        ({"wdith": 8}, r"vision_cfg has 'wdith' \(did you mean 'width'\?\), which is not known"),
    ],
    ids=str,
)
def test_what_is_no_resnet_of_clip_is_told(changes: dict[str, Any], told: str) -> None:
    _, faults = own_tower(VISION | changes, 12, quick_gelu=False)
    assert len(faults) == 1
    assert re.search(told, faults[0])
