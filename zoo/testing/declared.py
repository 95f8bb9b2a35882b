"""Checks of the declaration: listing without torch, licence, declared features."""

from __future__ import annotations

import logging
import subprocess

import torch
from torch import Tensor

from zoo.declare import Features
from zoo.models.construct.build import build
from zoo.registry.registry import default_registry
from zoo.testing.subject import Subject, tensors
from zoo.util.subprocess_python import environment, python

log = logging.getLogger("zoo")


def listing_imports_no_torch(subject: Subject) -> None:
    """Importing the plugin's module costs no model library."""
    plugin = default_registry().resolve(subject.name).plugin
    assert plugin, "no plugin declares it"
    module = plugin.module.partition(":")[0]
    code = f"import sys, importlib; importlib.import_module({module!r}); sys.exit('torch' in sys.modules)"
    done = subprocess.run(python(code), env=environment(), capture_output=True, text=True, check=False)
    assert not done.returncode, f"importing {module} imports torch; name functions as 'module:function' instead {done.stderr[-300:]}"


def licence_is_stated(subject: Subject) -> None:
    """Weights have a licence or, if the publisher states none, a source."""
    weights = subject.backbone.spec.weights
    if weights is None:
        return
    remedy = "write weights=zoo.Weights(…, license='apache-2.0')"
    assert weights.license, f"its weights state no licence; {remedy}"
    published = weights.repo or weights.url
    assert weights.license != "unknown" or published, (
        f"its weights have the licence 'unknown' and name no publisher; {remedy}, or name repo= or url= where a user can ask"
    )
    if weights.license == "unknown":
        log.warning("%s: the licence of its weights is unknown; %s does not state it", subject.name, published)


def headless_build_equals_plain_build(subject: Subject) -> None:
    """A build without values, loaded with the state of a plain build, gives equal features: there is no hidden state."""
    plain = subject.backbone.build().eval()
    filled = build(subject.backbone.spec.replace(convert=""), plain.state_dict).eval()
    assert next(filled.parameters()).data_ptr() == next(plain.parameters()).data_ptr()
    with torch.no_grad():
        pairs = zip(tensors(plain(subject.batch())), tensors(filled(subject.batch())), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs), "values that are neither parameters nor saved buffers differ"


def features_are_as_declared(subject: Subject) -> None:
    """The declared input gives the declared layout and width."""
    declared = subject.backbone.spec.features
    features = subject.features(subject.batch(declared=True))
    assert isinstance(features, Tensor), f"forward returns {type(features).__name__}, not a tensor"
    fits = features.ndim == len(declared.layout) and features.shape[0] == 2 and features.shape[_channel_axis(declared)] == declared.dim
    assert fits, f"forward returns {tuple(features.shape)}; declared are layout {declared.layout} and dim {declared.dim}"


def padding_changes_nothing(subject: Subject) -> None:
    """The content of the padding changes no feature of a text's tokens."""
    batch = subject.batch()
    assert isinstance(batch, dict), "only texts have padding"
    mask = batch["attention_mask"]
    other = {**batch, "input_ids": torch.where(mask.bool(), batch["input_ids"], torch.full_like(mask, 7))}
    one, two = subject.features(batch), subject.features(other)
    seen = mask[..., None] if one.ndim == 3 else torch.ones(())
    assert torch.allclose(one * seen, two * seen, rtol=1e-4, atol=1e-5), (
        "tokens that the attention mask leaves out change the features of others"
    )


def _channel_axis(features: Features) -> int:
    return -1 if features.layout in ("BHWC", "BND", "BD") else 1
