"""A saved model at another image size: positions are resampled from the grid that they were learned on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table

import zoo


def saved(tmp_path: Path, name: str, **options: Any) -> tuple[Path, Any]:
    model = zoo.get(name, weights=False, **options).adapt(2)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model.save(tmp_path / "saved"), model.backbone


@pytest.mark.parametrize("size", [(96, 64), (96, 144), (64, 64)])
def test_position_embeddings_of_a_rectangle_come_from_its_own_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: Any) -> None:
    folder, before = saved(tmp_path, "timm/test_vit", img_size=(64, 96))

    def published(*_: Any) -> Any:
        raise AssertionError("a saved model has the names of its module")

    monkeypatch.setattr("zoo_timm.load.convert", published)
    after = zoo.get(folder, img_size=size).build()
    grid = (size[0] // 16, size[1] // 16)
    assert torch.equal(after.pos_embed, resample_abs_pos_embed(before.pos_embed, grid, old_size=(4, 6), num_prefix_tokens=1))
    assert torch.equal(zoo.get(folder).build().pos_embed, before.pos_embed)
    assert torch.equal(after.blocks[0].attn.qkv.weight, before.blocks[0].attn.qkv.weight)


SWIN = {"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2)}
TABLE = "layers.0.blocks.0.attn.relative_position_bias_table"


@pytest.mark.filterwarnings("ignore::UserWarning")  # of scipy and torch in timm's interpolation
def test_tables_of_square_windows_are_resampled_and_those_of_rectangles_refused(tmp_path: Path) -> None:
    folder, before = saved(tmp_path, "timm/swin_tiny_patch4_window7_224", img_size=28, window_size=7, **SWIN)
    after = zoo.get(folder, img_size=56, window_size=14).build().get_parameter(TABLE)
    expected = resize_rel_pos_bias_table(before.get_parameter(TABLE), new_window_size=(14, 14), new_bias_shape=after.shape)
    assert torch.equal(after, expected)
    other, _ = saved(tmp_path / "other", "timm/swin_tiny_patch4_window7_224", img_size=(48, 56), window_size=(6, 7), **SWIN)
    with pytest.raises(zoo.ZooError, match=r"cannot be brought to img_size=\(56, 48\), window_size=\(7, 6\): its layers.*windows of"):
        zoo.get(other, img_size=(56, 48), window_size=(7, 6)).build()


def test_tables_of_offsets_are_resampled(tmp_path: Path) -> None:
    folder, before = saved(tmp_path, "timm/levit_128s", img_size=64)
    after = zoo.get(folder, img_size=96).build()
    key = "stages.0.blocks.0.attn.attention_biases"
    assert (before.get_parameter(key).shape[1], after.get_parameter(key).shape[1]) == (16, 36)


def test_positions_that_no_rule_resamples_are_an_error_that_names_the_option(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path, "timm/hiera_tiny_224", img_size=64, embed_dim=8)
    with pytest.raises(zoo.ZooError, match=r"was saved with other options and cannot be brought to img_size=96.*\n.*pos_embed is"):
        zoo.get(folder, img_size=96).build()
