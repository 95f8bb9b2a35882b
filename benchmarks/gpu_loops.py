"""The two loops that gpu.py compares, and the networks that they train."""

from __future__ import annotations

import argparse
import gc
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from side_by_side import Clock
from torch.nn.functional import cross_entropy


class Case(NamedTuple):
    """A network, samples per step, and pixels or, with ``text``, tokens. ``tiny`` are the options of its small form."""

    network: str
    batch: int
    size: int
    tiny: dict[str, Any]
    text: bool = False


CASES = {
    "ResNet-50": Case("bench/resnet50", 256, 224, {"layers": (1, 1, 1, 1), "img_size": 32}),
    "ViT-B/16": Case("bench/vit_b_16", 128, 224, {"layers": 1, "img_size": 32}),
    "ViT-B/16 of timm": Case("timm/vit_base_patch16_224", 128, 224, {"depth": 1, "img_size": 32}),
    "BERT-base": Case("bench/bert_base", 128, 128, {"layers": 1}, text=True),
}
# Dense bf16 with float32 accumulation, TFLOP/s, from the vendor's data sheets; the first name that matches counts.
PEAKS = {
    "GH200": 989, "H200": 989, "H100 PCIe": 756, "H100 NVL": 835, "H100": 989, "H800": 989, "B200": 2250, "A100": 312, "A800": 312,
    "A30": 165, "A40": 150, "A10G": 70, "A10": 125, "L40S": 362, "L40": 181, "L4": 121, "RTX 4090": 165, "RTX 3090": 71,
    "RTX A6000": 155, "RTX 6000 Ada": 364,
}  # fmt: skip


class Bench:
    """Settings of all rows: the device and the lengths of the runs."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.device = torch.device(arguments.device)
        self.tiny, self.warmup, self.steps = arguments.tiny, arguments.warmup, arguments.steps
        self.workers, self.repeats = arguments.workers, arguments.repeats
        self.cuda = self.device.type == "cuda"
        name = torch.cuda.get_device_name() if self.cuda else "CPU"
        self.name, self.peak = name, next((peak for part, peak in PEAKS.items() if re.search(rf"\b{part}\b", name)), None)

    def shape(self, case: Case) -> tuple[int, int]:
        """Return samples per step, and pixels or tokens."""
        return (4, 16 if case.text else 32) if self.tiny else (case.batch, case.size)

    def model(self, case: Case) -> Any:
        from networks import task_model

        return task_model(case.network, **(case.tiny if self.tiny else {}))

    def inputs(self, case: Case, count: int) -> tuple[Any, torch.Tensor]:
        """Return ``count`` random samples on the device, with labels."""
        from networks import CLASSES, VOCABULARY

        size = self.shape(case)[1]
        y = torch.arange(count, device=self.device) % CLASSES
        if case.text:
            ids = torch.randint(1, VOCABULARY, (count, size), device=self.device)
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, y
        return torch.randn(count, 3, size, size, device=self.device).contiguous(memory_format=self.layout(case)), y

    def layout(self, case: Case) -> torch.memory_format:
        return torch.channels_last if "resnet" in case.network else torch.contiguous_format

    @contextmanager
    def timed(self, case: Case) -> Iterator[dict[str, float]]:
        """Time the loop inside; the dict gets samples per second after the warm-up, seconds until the first step ends, and memory."""
        figures: dict[str, float] = {}
        first, last = self.warmup, self.warmup + self.steps
        wait = torch.cuda.synchronize if self.cuda else None
        torch.compiler.reset()  # torch.compile gives up on code after a number of recompilations
        if self.cuda:
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        with Clock(wait, at=(1, first, last)) as clock:
            yield figures
        figures["rate"] = self.shape(case)[0] * self.steps / (clock.wall[last] - clock.wall[first])
        figures["until_first_step"] = clock.wall[1] - clock.wall[0]
        if self.cuda:
            figures["gib"] = torch.cuda.max_memory_allocated() / 2**30

    def bare(self, case: Case, compiled: bool, batches: Callable[[], Iterator[Any]] | None = None) -> dict[str, float]:
        """Run the bare loop, by default on one batch on the device."""
        torch.backends.cudnn.benchmark = True  # for this loop alone: the engine decides for itself
        model = self.model(case).to(self.device).to(memory_format=self.layout(case)).train()
        forward = torch.compile(model) if compiled else model
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, fused=self.cuda)
        one = self.inputs(case, self.shape(case)[0]) if batches is None else None
        with self.timed(case) as figures:
            source = batches() if batches else None
            for _ in range(self.warmup + self.steps):
                x, y = one or next(source)  # type: ignore[arg-type]  # one of the two is there
                with torch.autocast(self.device.type, torch.bfloat16):
                    loss = cross_entropy(forward(x).float(), y)
                loss.backward()  # type: ignore[no-untyped-call]  # of torch
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        return figures

    def ours(self, case: Case, compiled: bool, photos: Any = None) -> dict[str, float]:
        """Run our engine, by default on one batch on the device, else on a table of photos."""
        from networks import Pictures, texts

        torch.backends.cudnn.benchmark = False
        batch, size = self.shape(case)
        count = batch * (self.warmup + self.steps)
        data: Any = (texts(count) if case.text else Pictures(count, size, kinds=batch)) if photos is None else photos
        own: dict[str, Any] = {"max_length": size} if case.text else {"image_size": size}
        own |= {"compile": True} if compiled else {}
        own |= {"augment": "none", "workers": 0} if photos is None else {"workers": self.workers}
        model = self.model(case)
        with tempfile.TemporaryDirectory() as out, self.timed(case) as figures, nullcontext() if photos is not None else one_batch():
            model.fit(
                data, False, recipe="full", epochs=1, batch_size=batch, lr=1e-4, precision="bf16", device=self.device.type,
                out=f"{out}/run", quiet=True, **own,
            )  # fmt: skip
        return figures

    def flops(self, case: Case) -> float:
        """Return the floating-point operations of one sample's forward and backward; a multiplication and its addition are two."""
        from torch.nn.attention import SDPBackend, sdpa_kernel
        from torch.utils.flop_counter import FlopCounterMode

        model = self.model(case).to(self.device).train()
        x, y = self.inputs(case, 2)
        # With the math kernel: on a CPU torch does not count the matrix products of fused attention.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]  # of torch
        return float(counter.get_total_flops()) / 2


@contextmanager
def one_batch() -> Iterator[None]:
    """Make the engine's loader repeat its first batch, so that loading takes no time."""
    from zoo.engine.loading.loader import Loader

    real = Loader.batches

    def repeated(self: Any, order: Any, epoch: int = 0) -> Iterator[Any]:
        first = next(iter(real(self, order[:1], epoch)))
        for indices in order:
            yield first._replace(indices=indices)

    Loader.batches = repeated  # type: ignore[method-assign]
    try:
        yield
    finally:
        Loader.batches = real  # type: ignore[method-assign]
