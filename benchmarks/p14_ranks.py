"""P14: seconds per step of two processes that train one network, against DistributedDataParallel.

Two processes of one thread each, joined by gloo on this machine. The same network, the same inputs in memory, AdamW at one rate,
float32, each side in its faster memory format. Small batches, so that the all-reduce is a large share of a step. A step is the
cost of one more epoch for the slower process, divided by its steps, which cancels set-up and the last write. Wall seconds, because
waiting is measured: let nothing else run.

Run: python benchmarks/p14_ranks.py
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from side_by_side import alternate, environment, report

COMMON = """
import json, os, sys, time, warnings
warnings.filterwarnings("ignore")
import torch, timm
from torch import nn
from torch import distributed as dist
name, size, batch, steps, extra, out = sys.argv[1], *map(int, sys.argv[2:6]), sys.argv[6]
torch.set_num_threads(1)
source = torch.Generator().manual_seed(0)
X = torch.rand(steps * batch * 2, 3, size, size, generator=source)
Y = torch.randint(2, (len(X),), generator=source)
"""
MEASURE = """
def cost(epochs):
    start = time.perf_counter()
    run(epochs)
    return time.perf_counter() - start
run(1)
short = cost(1)
seconds = (cost(1 + extra) - short) / (extra * steps)
open(f"{out}/{os.environ['RANK']}.json", "w").write(json.dumps(seconds))
"""
DDP = """
dist.init_process_group("gloo")
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler
options = {"img_size": size} if "vit" in name else {}
convolutions = "vit" not in name
def run(epochs):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=2, **options).train()
    if convolutions:
        model = model.to(memory_format=torch.channels_last)
    model = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.05)
    data = TensorDataset(X, Y)
    sampler = DistributedSampler(data)
    loader = DataLoader(data, batch_size=batch, sampler=sampler)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for x, y in loader:
            if convolutions:
                x = x.to(memory_format=torch.channels_last)
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(model(x), y)
            loss.item()  # watched, as ours is
            loss.backward()
            optimizer.step()
"""
ZOO = """
import zoo
from pathlib import Path
options = {"img_size": size} if "vit" in name else {}
class Pairs(torch.utils.data.Dataset):
    def __len__(self): return len(X)
    def __getitem__(self, i): return X[i], int(Y[i])
def run(epochs):
    backbone = zoo.get("timm/" + name, weights=False, **options)
    backbone.adapt(2).fit(Pairs(), valid=False, recipe="full", epochs=epochs, batch_size=2 * batch, lr=3e-4, image_size=size,
                          augment="none", warmup=0.0, workers=0, out=Path(out) / f"run-{next(number)}", quiet=True)
import itertools
number = itertools.count()
"""


def per_step(body: str, *arguments: object) -> float:
    """Run code in two processes and return the seconds per step of the slower one."""
    with tempfile.TemporaryDirectory() as out:
        script = Path(out) / "measured.py"
        script.write_text(COMMON + body + MEASURE, encoding="utf-8")
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        done = subprocess.run(
            [*launch, str(script), *map(str, arguments), out], capture_output=True, text=True, check=False,
            env=environment() | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{done.stderr[-4000:]}\nthe processes above ended with {done.returncode}")
        return max(json.loads((Path(out) / f"{rank}.json").read_text()) for rank in (0, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=["resnet18", "vit_tiny_patch16_224"])
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--batch", type=int, default=8, help="samples of each process per step")
    parser.add_argument("--steps", type=int, default=20, help="per epoch")
    parser.add_argument("--extra", type=int, default=2, help="epochs beyond the first")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    for name in arguments.networks:
        sizes = (name, arguments.size, arguments.batch, arguments.steps, arguments.extra)
        runs = {
            "zoo": lambda sizes=sizes: per_step(ZOO, *sizes),
            "DistributedDataParallel": lambda sizes=sizes: per_step(DDP, *sizes),
        }
        report(f"P14, {name}: seconds per step of two processes", alternate(runs, arguments.repeats), ours="zoo")


if __name__ == "__main__":
    main()
