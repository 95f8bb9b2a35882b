"""Pretrain GlyphNet on distorted letters and write the weights that ship with zoo.

    OMP_NUM_THREADS=1 python scripts/pretrain_glyphnet.py --seed 0 --out zoo/builtin/glyphnet.safetensors

One thread, so that the same seed and library versions give the same file. Prints the accuracy on letters of fonts that were
never trained on, and the digest to declare in ``zoo/builtin/__init__.py``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from pathlib import Path

import torch
from glyphs import LATIN, TEST_FONTS, TRAIN_FONTS, Bank, build_bank, choose_classes, distort
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from zoo.builtin import GLYPHNET
from zoo.builtin.glyphnet import GlyphNet
from zoo.declare import Image

WARMUP = 100  # steps
BATCH = 128


def normalise(pictures: Tensor) -> Tensor:
    """Normalise pictures in [0, 1] as the declaration says."""
    assert isinstance(GLYPHNET.inputs, Image)
    return ((pictures - GLYPHNET.inputs.mean[0]) / GLYPHNET.inputs.std[0]).contiguous(memory_format=torch.channels_last)


class Sampler:
    """Endless distorted batches; a class is drawn with the square root of the number of its glyphs."""

    def __init__(self, bank: Bank, seed: int) -> None:
        self.bank = bank
        self.generator = torch.Generator().manual_seed(seed)
        self.weights = torch.bincount(bank.labels).float().rsqrt()[bank.labels]

    def draw(self, batch: int = BATCH) -> tuple[Tensor, Tensor]:
        """Return pictures float32 ``(batch, 1, 32, 32)`` in [0, 1] and labels int64 ``(batch,)``."""
        index = torch.multinomial(self.weights, batch, replacement=True, generator=self.generator)
        return distort(self.bank.glyphs[index], self.generator), self.bank.labels[index]


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Return the rate at ``step``: linear warm-up, then half a cosine down to zero."""
    warm = min(1.0, (step + 1) / WARMUP)
    return peak * warm * 0.5 * (1 + math.cos(math.pi * step / steps))


def pretrain(bank: Bank, *, seed: int, steps: int, peak: float = 3e-3, batch: int = BATCH, every: int = 100) -> tuple[GlyphNet, nn.Linear]:
    """Train the backbone with a linear head to tell the classes apart; returns both in eval mode."""
    torch.manual_seed(seed)
    backbone = GlyphNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
    head = nn.Linear(GLYPHNET.features.dim, len(bank.classes))
    decayed = [p for p in [*backbone.parameters(), *head.parameters()] if p.ndim > 1]
    plain = [p for p in [*backbone.parameters(), *head.parameters()] if p.ndim <= 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}], fused=True)
    sampler, started = Sampler(bank, seed), time.monotonic()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        pictures, labels = sampler.draw(batch)
        logits = head(backbone(normalise(pictures)).mean(dim=(2, 3)))
        loss = functional.cross_entropy(logits, labels, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if every and (step + 1) % every == 0:
            right = (logits.argmax(dim=1) == labels).float().mean()
            print(f"step {step + 1:5d}  loss {loss:.3f}  batch accuracy {right:.3f}  {time.monotonic() - started:.0f} s", flush=True)
    return backbone.eval(), head.eval()


@torch.inference_mode()
def accuracy(backbone: GlyphNet, head: nn.Linear, bank: Bank, *, seed: int, batches: int = 16) -> float:
    """Return the share of distorted pictures of ``bank`` that get their class, among all classes."""
    sampler, right = Sampler(bank, seed), 0.0
    for _ in range(batches):
        pictures, labels = sampler.draw()
        right += float((head(backbone(normalise(pictures)).mean(dim=(2, 3))).argmax(dim=1) == labels).float().mean())
    return right / batches


def write(backbone: GlyphNet, out: Path, *, seed: int, steps: int) -> str:
    """Write the backbone's weights with their provenance; returns the file's sha256."""
    metadata = {"format": "pt", "license": "apache-2.0", "script": "scripts/pretrain_glyphnet.py", "seed": str(seed), "steps": str(steps)}
    content = save({name: tensor.contiguous() for name, tensor in backbone.state_dict().items()}, metadata=metadata)
    out.write_bytes(_with_sorted_metadata(content))
    return hashlib.sha256(out.read_bytes()).hexdigest()


def _with_sorted_metadata(content: bytes) -> bytes:
    """Return a safetensors file with its metadata in sorted order: the library writes them in another order each time."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def main() -> None:
    """Parse the command line, train, test, write."""
    parser = argparse.ArgumentParser(description="Pretrain GlyphNet on distorted letters.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2600)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    classes = choose_classes()
    bank = build_bank(TRAIN_FONTS, classes)
    print(f"{len(bank.labels)} glyphs of {len(classes)} classes from {len(TRAIN_FONTS)} fonts")
    backbone, head = pretrain(bank, seed=arguments.seed, steps=arguments.steps)
    held_out = build_bank(TEST_FONTS, classes, LATIN)
    print(f"new distortions of the training fonts: {accuracy(backbone, head, bank, seed=arguments.seed + 1):.3f}")
    print(f"{len(held_out.labels)} Latin letters of held-out fonts: {accuracy(backbone, head, held_out, seed=arguments.seed + 1):.3f}")
    print(f"sha256 {write(backbone, arguments.out, seed=arguments.seed, steps=arguments.steps)}  {arguments.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
