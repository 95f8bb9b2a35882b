"""Self-supervised learning: losses against their formulas, and the collapse meter."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.transfer.pictures import flat
from zoo.errors import OptionError
from zoo.transfer import Dino, MaskedAutoencoder, MaskedLanguage, SimClr
from zoo.transfer.pretraining.collapse import collapse
from zoo.transfer.pretraining.dino import local_side
from zoo.transfer.pretraining.mae import masked_pixel_loss, sine_positions
from zoo.transfer.pretraining.mlm import UNCHOSEN, Masking
from zoo.transfer.pretraining.patches import patchify, shown_patches
from zoo.transfer.pretraining.simclr import nt_xent
from zoo.transfer.pretraining.teacher import Prototypes, Teacher, dino_loss, momentum_at


def rows(seed: int, count: int = 5) -> Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))


def by_lightly(first: Tensor, second: Tensor, temperature: float) -> float:
    """NTXentLoss of lightly 1.6 for one process without a memory bank, written out."""
    a, b = functional.normalize(first, dim=1), functional.normalize(second, dim=1)
    count, other = len(a), ~torch.eye(len(a), dtype=torch.bool)
    logits_00 = (a @ a.T / temperature)[other].view(count, -1)
    logits_01, logits_10 = a @ b.T / temperature, b @ a.T / temperature
    logits_11 = (b @ b.T / temperature)[other].view(count, -1)
    logits = torch.cat([torch.cat([logits_01, logits_00], 1), torch.cat([logits_10, logits_11], 1)])
    return float(functional.cross_entropy(logits, torch.arange(count).repeat(2)))


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_the_loss_of_two_views_is_that_of_lightly(temperature: float) -> None:
    assert float(nt_xent(rows(0), rows(1), temperature)) == pytest.approx(by_lightly(rows(0), rows(1), temperature), rel=1e-5)


def test_the_loss_of_two_views_is_that_of_chance_for_equal_features_and_small_for_views_that_agree() -> None:
    assert float(nt_xent(torch.ones(5, 3), torch.ones(5, 3), 0.5)) == pytest.approx(math.log(9), rel=1e-5)
    assert float(nt_xent(torch.eye(4), torch.eye(4), 0.1)) < 1e-3


def test_the_collapse_meter_is_zero_for_equal_features_and_highest_for_even_ones() -> None:
    noise = np.random.default_rng(0).normal(size=(4000, 8))
    spread = collapse(noise)
    assert spread["feature_std"] == pytest.approx(1, abs=0.02)
    assert spread["effective_rank"] == pytest.approx(8, abs=0.02)
    assert collapse(np.ones((20, 8))) == pytest.approx({"feature_std": 0.0, "effective_rank": 0.0}, abs=1e-9)
    line = noise[:, :1] * np.ones(8) + 5
    assert collapse(np.sign(noise[:, :1]) * np.arange(1, 9))["effective_rank"] == pytest.approx(1)
    assert collapse(line)["feature_std"] < spread["feature_std"]


def test_options_out_of_range_are_refused_together() -> None:
    with pytest.raises(OptionError) as caught:
        SimClr(temperature=0, projection_dim=0, hidden=-1)
    with pytest.raises(OptionError, match="mask_ratio is 1"):
        MaskedLanguage(mask_ratio=1.0)
    assert all(part in str(caught.value) for part in ("temperature is 0", "projection_dim is 0", "hidden is -1"))


def test_tokens_are_hidden_by_the_rule_of_bert() -> None:
    ids = torch.randint(10, 1000, (400, 100), generator=torch.Generator().manual_seed(0))
    ids[:, 0], ids[:, -1] = 1, 2
    real = torch.ones_like(ids)
    real[:, 90:] = 0
    shown, targets = Masking(3, frozenset((1, 2)), 1000, 0.15)(ids, real, [(0, 0, row) for row in range(400)])
    chosen = targets != UNCHOSEN
    assert float(chosen[:, 1:90].float().mean()) == pytest.approx(0.15, abs=0.01)
    assert not chosen[:, 0].any()
    assert not chosen[:, 90:].any()
    assert torch.equal(targets[chosen], ids[chosen])
    assert torch.equal(shown[~chosen], ids[~chosen])
    assert float((shown[chosen] == 3).float().mean()) == pytest.approx(0.8, abs=0.02)
    assert float((shown[chosen] == ids[chosen]).float().mean()) == pytest.approx(0.1, abs=0.02)


def test_which_tokens_are_hidden_depends_on_the_text_and_the_step_and_not_on_the_padding() -> None:
    ids, rule = torch.arange(5, 13)[None], Masking(3, frozenset(), 1000, 0.4)
    padded, real = functional.pad(ids, (0, 4)), functional.pad(torch.ones_like(ids), (0, 4))
    once, again = rule(ids, torch.ones_like(ids), [(0, 0, 7)]), rule(padded, real, [(0, 0, 7)])
    assert all(torch.equal(one, two[:, :8]) for one, two in zip(once, again, strict=True))
    assert not torch.equal(once[1], rule(ids, torch.ones_like(ids), [(0, 1, 7)])[1])
    short = rule(ids[:, :1], torch.ones(1, 1), [(0, 0, 0)])
    assert int(short[1]) == 5  # a text has at least one chosen token


def by_lightly_dino(teacher: list[Tensor], student: list[Tensor], center: Tensor) -> float:
    """DINOLoss of lightly 1.6 with its default temperatures, written out."""
    targets = torch.stack([functional.softmax((rows - center) / 0.04, dim=-1) for rows in teacher])
    logs = torch.stack([functional.log_softmax(rows / 0.1, dim=-1) for rows in student])
    loss = -torch.einsum("tbd,sbd->ts", targets, logs)
    loss.fill_diagonal_(0)
    terms = loss.numel() - loss.diagonal().numel()
    return float(loss.sum() / (terms * teacher[0].shape[0]))


def test_the_loss_of_crops_is_that_of_lightly() -> None:
    teacher, student, center = [rows(0), rows(1)], [rows(2), rows(3), rows(4)], rows(5)[:1]
    found = dino_loss(teacher, student, center[0], teacher_temperature=0.04, student_temperature=0.1)
    assert float(found) == pytest.approx(by_lightly_dino(teacher, student, center), rel=1e-5)


def test_the_momentum_of_the_teacher_rises_from_its_start_to_one() -> None:
    found = [momentum_at(step, 11, 0.9) for step in range(12)]
    assert found[0] == pytest.approx(0.9)
    assert found[5] == pytest.approx(0.95)
    assert found[10] == found[11] == 1.0
    assert found == sorted(found)


def test_the_prototypes_are_compared_by_their_cosines() -> None:
    head = Prototypes(4, 6, hidden=5, width=3)
    found = head(rows(0))
    assert found.shape == (5, 6)
    assert float(found.detach().abs().max()) <= 1 + 1e-6
    with torch.no_grad():
        head.prototypes.mul_(7)
    assert torch.allclose(head(rows(0)), found, atol=1e-6)


def test_patches_are_those_of_the_authors() -> None:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = torch.einsum("nchpwq->nhwpqc", x.reshape(2, 3, 2, 4, 2, 4)).reshape(2, 4, 48)  # models_mae.py of He et al.
    assert torch.equal(patchify(x, 4), expected)


def test_the_loss_of_hidden_patches_is_that_of_the_authors() -> None:
    draw = torch.Generator().manual_seed(0)
    found, patches = (torch.randn(3, 5, 12, generator=draw) for _ in range(2))
    hidden = torch.tensor([[1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]]).float()
    target = (patches - patches.mean(dim=-1, keepdim=True)) / (patches.var(dim=-1, keepdim=True) + 1.0e-6) ** 0.5
    each = ((found - target) ** 2).mean(dim=-1)
    assert float(masked_pixel_loss(found, patches, hidden).mean()) == pytest.approx(float((each * hidden).sum() / hidden.sum()), rel=1e-5)


def test_visible_patches_are_a_function_of_the_key_and_at_least_one_is_hidden() -> None:
    keys = [(0, 0, row) for row in range(50)]
    found = shown_patches(16, 0.75, keys)
    assert found.shape == (50, 4)
    assert torch.equal(found, shown_patches(16, 0.75, keys))
    assert not torch.equal(found, shown_patches(16, 0.75, [(0, 1, row) for row in range(50)]))
    assert torch.equal(found, found.sort(1).values)
    assert [shown_patches(16, share, keys).shape[1] for share in (0.001, 0.999)] == [15, 1]


def test_positions_of_a_grid_differ() -> None:
    found = sine_positions(3, 4, 32)
    assert found.shape == (12, 32)
    assert len(torch.unique(found, dim=0)) == 12


def test_options_of_dino_and_mae_out_of_range_are_refused_together() -> None:
    with pytest.raises(OptionError) as caught:
        Dino(local_views=-1, teacher_temperature=0, teacher_momentum=1.0)
    assert all(part in str(caught.value) for part in ("local_views is -1", "teacher_temperature is 0", "teacher_momentum is 1.0"))
    with pytest.raises(OptionError) as caught:
        MaskedAutoencoder(mask_ratio=1.0, decoder_width=33, decoder_depth=0)
    assert all(part in str(caught.value) for part in ("mask_ratio is 1.0", "decoder_width is 33", "decoder_depth is 0"))


@pytest.mark.parametrize(
    ("side", "step", "expected"), [(224, 16, 96), (224, 14, 98), (518, 14, 224), (16, 8, 16), (20, 8, 20), (40, 14, 40)]
)
def test_local_crops_are_cut_into_whole_patches(side: int, step: int, expected: int) -> None:
    assert local_side(side, step) == expected


def test_the_teacher_drops_nothing_in_training_and_normalises_by_the_batch() -> None:
    model = flat().adapt(3)
    model.backbone.add_module("dropout", torch.nn.Dropout(0.5))
    teacher = Teacher(model, Prototypes(24, 6, hidden=5, width=3))
    torch.nn.ModuleDict({"teacher": teacher}).train()
    modes = {type(part).__name__: part.training for part in teacher.modules()}
    assert not modes["Dropout"]
    assert modes["BatchNorm1d"]
    teacher.eval()
    assert not any(part.training for part in teacher.modules())
