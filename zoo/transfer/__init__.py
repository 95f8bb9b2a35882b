"""Methods of transfer learning. Nothing here imports torch until a method is called for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.transfer.contrastive import Contrastive as Contrastive
    from zoo.transfer.distill import Distill as Distill
    from zoo.transfer.domain.adaptation import DomainAdaptation as DomainAdaptation
    from zoo.transfer.domain.source_free import SourceFree as SourceFree
    from zoo.transfer.domain.source_free import adapt_source_free as adapt_source_free
    from zoo.transfer.fewshot.episodes import Episodes as Episodes
    from zoo.transfer.fewshot.episodes import few_shot_episodes as few_shot_episodes
    from zoo.transfer.fewshot.few_shot import FewShot as FewShot
    from zoo.transfer.fewshot.few_shot import few_shot as few_shot
    from zoo.transfer.fewshot.meta import Maml as Maml
    from zoo.transfer.flyp import Flyp as Flyp
    from zoo.transfer.fusion.fuse import fuse as fuse
    from zoo.transfer.fusion.model import Fusion as Fusion
    from zoo.transfer.fusion.model import load_fusion as load_fusion
    from zoo.transfer.lwf import LearnWithoutForgetting as LearnWithoutForgetting
    from zoo.transfer.method import Method as Method
    from zoo.transfer.multi_task import MultiTask as MultiTask
    from zoo.transfer.pretraining.dino import Dino as Dino
    from zoo.transfer.pretraining.mae import MaskedAutoencoder as MaskedAutoencoder
    from zoo.transfer.pretraining.mlm import MaskedLanguage as MaskedLanguage
    from zoo.transfer.pretraining.pretrain import Pretrained as Pretrained
    from zoo.transfer.pretraining.pretrain import pretrain as pretrain
    from zoo.transfer.pretraining.simclr import SimClr as SimClr
    from zoo.transfer.semi.methods import FixMatch as FixMatch
    from zoo.transfer.semi.methods import FlexMatch as FlexMatch

_LAZY = {
    "Contrastive": "zoo.transfer.contrastive",
    "Dino": "zoo.transfer.pretraining.dino",
    "Distill": "zoo.transfer.distill",
    "DomainAdaptation": "zoo.transfer.domain.adaptation",
    "Episodes": "zoo.transfer.fewshot.episodes",
    "FewShot": "zoo.transfer.fewshot.few_shot",
    "FixMatch": "zoo.transfer.semi.methods",
    "FlexMatch": "zoo.transfer.semi.methods",
    "Flyp": "zoo.transfer.flyp",
    "Fusion": "zoo.transfer.fusion.model",
    "Maml": "zoo.transfer.fewshot.meta",
    "LearnWithoutForgetting": "zoo.transfer.lwf",
    "MaskedAutoencoder": "zoo.transfer.pretraining.mae",
    "MaskedLanguage": "zoo.transfer.pretraining.mlm",
    "Method": "zoo.transfer.method",
    "MultiTask": "zoo.transfer.multi_task",
    "Pretrained": "zoo.transfer.pretraining.pretrain",
    "SimClr": "zoo.transfer.pretraining.simclr",
    "SourceFree": "zoo.transfer.domain.source_free",
    "adapt_source_free": "zoo.transfer.domain.source_free",
    "fuse": "zoo.transfer.fusion.fuse",
    "load_fusion": "zoo.transfer.fusion.model",
    "pretrain": "zoo.transfer.pretraining.pretrain",
    "few_shot": "zoo.transfer.fewshot.few_shot",
    "few_shot_episodes": "zoo.transfer.fewshot.episodes",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    from zoo.util.missing_attribute import missing_attribute

    raise missing_attribute(__name__, name)


def __dir__() -> list[str]:
    return sorted([*_LAZY, *(name for name in globals() if name.startswith("__"))])
