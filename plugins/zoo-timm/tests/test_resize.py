"""A saved model at another image size: positions are resampled from the grid that they were learned on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table, resize_rel_pos_bias_table_levit

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


@pytest.mark.parametrize("key", ["stages.0.blocks.0.attn.attention_biases", "stages.0.blocks.1.attn.attention_biases"])
def test_tables_of_offsets_are_resampled(tmp_path: Path, key: str) -> None:
    folder, before = saved(tmp_path, "timm/levit_128s", img_size=64)
    after = zoo.get(folder, img_size=96).build().get_parameter(key)
    expected = resize_rel_pos_bias_table_levit(before.get_parameter(key).T, after.shape[::-1]).T
    assert (before.get_parameter(key).shape[1], after.shape[1]) == (16, 36)
    assert torch.equal(after, expected)


@pytest.mark.parametrize(
    ("name", "sizes", "grids"),
    [
        ("levit_128s", [(128, 128), (192, 192)], ["8 x 8", "12 x 12"]),  # equally many positions as 4 x 16, and more
        ("efficientformerv2_s0", [(128, 128)], ["4 x 4"]),
    ],
)
def test_tables_of_offsets_of_a_rectangle_are_refused(tmp_path: Path, name: str, sizes: list[Any], grids: list[str]) -> None:
    folder, before = saved(tmp_path, f"timm/{name}", img_size=(64, 256))
    for size, grid in zip(sizes, grids, strict=True):
        with pytest.raises(zoo.ZooError, match=rf"was saved with other options.*attention_biases is for \d x \d+ positions.*to {grid}"):
            zoo.get(folder, img_size=size).build()
    same = zoo.get(folder, drop_path_rate=0.1).build().state_dict()  # another option, the same grid
    assert all(torch.equal(same[key], value) for key, value in before.state_dict().items())


@pytest.mark.parametrize(
    ("name", "options", "key", "old", "new", "prefix"),
    [
        ("test_vit", {}, "pos_embed", (4, 16), (8, 8), 1),
        ("tnt_s_legacy_patch16_224", {"depth": 1}, "patch_pos", (4, 16), (8, 8), 1),
        ("hiera_tiny_224", {"embed_dim": 8}, "pos_embed", (16, 64), (32, 32), 0),
    ],
)
def test_another_grid_of_equally_many_positions_is_resampled(
    tmp_path: Path, name: str, options: dict[str, Any], key: str, old: Any, new: Any, prefix: int
) -> None:
    folder, before = saved(tmp_path, f"timm/{name}", img_size=(64, 256), **options)
    value, after = before.get_parameter(key), zoo.get(folder, img_size=128).build().get_parameter(key)
    assert value.shape == after.shape
    assert torch.equal(after, resample_abs_pos_embed(value, new, old_size=old, num_prefix_tokens=prefix))
    assert not torch.equal(after, value)


def test_each_branch_of_patches_is_resampled_from_its_own_grid(tmp_path: Path) -> None:
    folder, before = saved(tmp_path, "timm/crossvit_9_240", img_size=240)
    after = zoo.get(folder, img_size=(480, 120)).build()
    for index, side in enumerate((20, 14)):
        value, new = before.get_parameter(f"pos_embed_{index}"), after.get_parameter(f"pos_embed_{index}")
        grid = (2 * side, side // 2)
        assert value.shape == new.shape == (1, 1 + side * side, value.shape[2])
        assert torch.equal(new, resample_abs_pos_embed(value, grid, old_size=(side, side)))


def test_layers_that_mix_the_tokens_of_another_grid_are_refused(tmp_path: Path) -> None:
    for name in ("mixer_s32_224", "gmlp_ti16_224", "resmlp_12_224"):
        folder, _ = saved(tmp_path / name, f"timm/{name}", img_size=(64, 256))
        with pytest.raises(zoo.ZooError, match=r"cannot be brought to img_size=128: its layers mix the tokens of \d x \d+ patches"):
            zoo.get(folder, img_size=128).build()


def test_windows_of_equally_many_positions_are_told_apart(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path, "timm/test_coatnet", img_size=(64, 128))
    with pytest.raises(zoo.ZooError, match=r"relative_position_bias_table is for windows of \(4, 8\) and cannot be resampled to \(8, 4\)"):
        zoo.get(folder, img_size=(128, 64)).build()


def test_positions_that_no_rule_resamples_are_an_error_that_names_the_option(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path, "timm/pit_ti_224", img_size=64)
    with pytest.raises(zoo.ZooError, match=r"was saved with other options and cannot be brought to img_size=96: its pos_embed of shape"):
        zoo.get(folder, img_size=96).build()


@pytest.mark.parametrize(
    ("name", "options", "more", "key"),
    [
        ("test_vit", {"img_size": 64, "depth": 2}, {"depth": 3}, "blocks.2"),
        ("swin_tiny_patch4_window7_224", {"img_size": 28, "window_size": 7, **SWIN}, {"depths": (1, 2)}, "layers.1.blocks.1"),
    ],
)
def test_further_blocks_are_missing_in_the_file(tmp_path: Path, name: str, options: Any, more: Any, key: str) -> None:
    folder, before = saved(tmp_path, f"timm/{name}", **options)
    with pytest.raises(zoo.ZooError, match=rf"(?s)was saved with other options.*fills \d+ of \d+ tensors.*{key}.*is not in the file"):
        zoo.get(folder, **more).build()
    after = zoo.get(folder, allow_partial=True, **more).build().state_dict()
    assert any(name.startswith(key) for name in after)
    assert all(torch.equal(after[name], value) for name, value in before.state_dict().items())


def test_fewer_blocks_leave_out_the_last_ones(tmp_path: Path) -> None:
    folder, before = saved(tmp_path, "timm/test_vit", img_size=64, depth=3)
    after = zoo.get(folder, depth=2).build()
    assert len(after.blocks) == 2
    assert all(torch.equal(before.state_dict()[name], value) for name, value in after.state_dict().items())


def test_a_size_without_a_patch_is_one_error_with_its_cause(tmp_path: Path) -> None:
    folder, _ = saved(tmp_path, "timm/test_vit", img_size=64)
    with pytest.raises(
        zoo.ZooError, match=r"cannot be brought to img_size=8: zoo_timm.resize:resize failed with RuntimeError: Input"
    ) as caught:
        zoo.get(folder, img_size=8).build()
    assert caught.value.__cause__
