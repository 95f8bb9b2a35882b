"""From the keys of published checkpoints to those of the backbones: a whole model's prefix goes, and so does what is not in a backbone."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

State = dict[str, Tensor]


def xray_keys(state: Mapping[str, Tensor], module: nn.Module) -> State:
    """Map the state of torchxrayvision's DenseNet or ResNet: ``model.`` in front of a ResNet's keys goes, and the classifier."""
    return _kept(state, module, "model.")


def medicalnet_keys(state: Mapping[str, Tensor], module: nn.Module) -> State:
    """Map a MedicalNet checkpoint (Chen et al. 2019), whose segmentation head is left out."""
    return _kept(state, module, "module.")


def swin_keys(state: Mapping[str, Tensor], module: nn.Module) -> State:
    """Map a whole SwinUNETR, or the checkpoint of its self-supervised training, which calls the linear layers fc1 and fc2."""
    renamed = {key.replace(".mlp.fc", ".mlp.linear"): tensor for key, tensor in state.items()}
    return _kept(renamed, module, "swinViT.")


def vit_keys(state: Mapping[str, Tensor], module: nn.Module) -> State:
    """Map a whole UNETR, whose encoder is ``vit``, or a ViT; MONAI saves a norm for a cross attention that these blocks do not have."""
    return _kept({key: tensor for key, tensor in state.items() if ".norm_cross_attn." not in key}, module, "vit.")


def _kept(state: Mapping[str, Tensor], module: nn.Module, prefix: str) -> State:
    """Return the tensors that the module has, found with or without ``prefix``; the rest goes on under its own name to be reported."""
    own = module.state_dict().keys()
    return {key.removeprefix(prefix) if key.removeprefix(prefix) in own else key: tensor for key, tensor in state.items()}
