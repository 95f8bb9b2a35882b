"""A plugin whose network does something bad on one rank, and runs of the command line with it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.faults.fake_dist import ROOT, fake_dist
from tests.warm_process import run_warm

# The fault stands in a file beside the module: its kind, the rank, the training forward. Without the file the network is sound.
SOURCE = """
    import os, resource, signal, time
    from pathlib import Path
    import zoo

    HERE, RANK = Path(__file__).parent, os.environ.get("RANK", "0")

    def fault(call):
        path = HERE / "fault.txt"
        kind, rank, when = path.read_text().split() if path.is_file() else ("", "", "-1")
        if RANK != rank or call != int(when):
            return
        if not (HERE / "since").exists():
            (HERE / "since").touch()
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif kind == "raise":
            raise ValueError("the disc is scratched")
        elif kind == "hang":
            while True:
                time.sleep(60)
        elif kind == "exit":
            os._exit(0)
        elif kind == "term":
            os.kill(os.getpid(), signal.SIGTERM)
        elif kind == "memory":
            (HERE / "fault.txt").unlink()
            raise MemoryError
        elif kind == "disk":
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        elif kind == "slow":
            time.sleep(120)

    def build(width=8):
        import torch
        from torch import nn

        (HERE / f"pid-{RANK}").write_text(str(os.getpid()))
        fault(0)

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem, self.body, self.calls = nn.Conv2d(3, width, 3, 2, 1), nn.Conv2d(width, width, 3, 1, 1), 0

            def forward(self, x):
                self.calls += self.training
                if self.training:
                    fault(self.calls)
                    (HERE / f"calls-{RANK}").write_text(str(self.calls))
                return torch.relu(self.body(torch.relu(self.stem(x))))

        return Net()

    @zoo.hookimpl
    def zoo_backbones():
        layers = {"stem": "stem", "body": "body"}
        yield zoo.BackboneSpec(name="faulty/net", build="zoo_faulty:build", layers=layers, inputs=zoo.Image(size=16),
                               features=zoo.Features(dim=8, layout="BCHW"))
"""


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        code: Exit code of the launcher.
        text: What was shown.
        seconds: From the fault to the end of the launcher; from the start without a fault.
        orphans: Ranks that outlived the launcher.
    """

    code: int
    text: str
    seconds: float
    orphans: list[str]


class Site:
    """A folder with the plugin, a data set of photos, and the runs."""

    def __init__(self, folder: Path, photos: int = 20) -> None:
        self.folder = folder
        self.path = fake_dist(folder / "site", "zoo-faulty", SOURCE)
        source = np.random.default_rng(0)
        for channel, name in enumerate(("red", "green")):
            (folder / "data" / name).mkdir(parents=True)
            for number in range(photos):
                pixels = source.integers(0, 150, (16, 16, 3)).astype(np.uint8)
                pixels[:, :, channel] += 50
                Image.fromarray(pixels).save(folder / "data" / name / f"{number:03d}.png")

    def run(self, *words: str, out: str, fault: str = "", launcher: str = "zoo", processes: int = 2, stop: str = "") -> Ended:
        """Train and wait for the end.

        Args:
            words: Further arguments of the command.
            out: Name of the run's folder.
            fault: Kind, rank and training forward, such as ``kill 1 3``.
            launcher: ``zoo``, ``torchrun``, ``accelerate`` or ``alone``.
            processes: How many.
            stop: Signal that the launcher gets once rank 0 has trained for two steps.
        """
        for left in ("since", *(f"pid-{number}" for number in range(4)), *(f"calls-{number}" for number in range(4)), "fault.txt"):
            (self.path / left).unlink(missing_ok=True)
        if fault:
            (self.path / "fault.txt").write_text(fault)
        command = [*self._command(out), *words]
        process = subprocess.Popen(
            [*_launcher(launcher, processes), *command, *(["--num-processes", str(processes)] if launcher == "zoo" else [])],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.folder, env=self.environment(),
        )  # fmt: skip
        started = time.time()
        if stop:
            self._stop(process, stop)
        text, _ = process.communicate(timeout=150)
        since = self.path / "since"
        begun = since.stat().st_mtime if since.is_file() else started
        return Ended(process.returncode, text, time.time() - begun, self._orphans())

    def run_warm(self, *words: str, out: str) -> Ended:
        """Train in one process that has torch already, and without a fault."""
        (self.path / "fault.txt").unlink(missing_ok=True)
        code = "import sys; from zoo.cli import main; sys.exit(main(sys.argv[1:]))"
        done = run_warm(code, [*self._command(out), *words], env=self.environment(), cwd=self.folder)
        return Ended(done.returncode, done.stdout + done.stderr, 0.0, [])

    def run_nodes(self, *, out: str, nodes: int = 2) -> list[Ended]:
        """Train on several "machines" of one process each, all of them this one."""
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            place = f"localhost:{probe.getsockname()[1]}"
        launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", str(nodes), "--nproc-per-node", "1"]
        launch += ["--rdzv-backend", "c10d", "--rdzv-id", "site", "--rdzv-endpoint", place, "-m", "zoo.cli", *self._command(out)]
        options: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": self.folder}
        processes = [subprocess.Popen(launch, env=self.environment(), **options) for _ in range(nodes)]
        texts = [process.communicate(timeout=150)[0] for process in processes]
        return [Ended(process.returncode, text, 0.0, self._orphans()) for process, text in zip(processes, texts, strict=True)]

    def _command(self, out: str) -> list[str]:
        command = ["train", "faulty/net", str(self.folder / "data"), "--recipe", "lp-ft", "--epochs", "4", "--batch-size", "8"]
        return [*command, "--out", str(self.folder / out), "--set", "timeout=20", "--set", "workers=0", "--set", "augment=none"]

    def environment(self) -> dict[str, str]:
        around = {key: value for key, value in os.environ.items() if not key.startswith(("ZOO_", "XDG_"))}
        path = os.pathsep.join(map(str, [self.path, ROOT]))
        own = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HOME": str(self.folder), "ZOO_CACHE": str(self.folder / "cache")}
        return around | own

    def _stop(self, process: subprocess.Popen[str], stop: str) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            calls = self.path / "calls-0"
            if calls.is_file() and (calls.read_text() or "0") >= "2":
                break
            time.sleep(0.005)
        process.send_signal(getattr(signal, stop))

    def _orphans(self) -> list[str]:
        """Return the ranks that are still there, some seconds after they were to end."""
        deadline = time.monotonic() + 5
        while (left := self._there()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return left

    def _there(self) -> list[str]:
        left = []
        for path in sorted(self.path.glob("pid-*")):
            try:
                os.kill(int(path.read_text()), 0)
            except ProcessLookupError:
                continue
            left.append(path.name)
        return left


def _launcher(name: str, processes: int) -> Sequence[str]:
    python = [sys.executable, "-m"]
    if name == "torchrun":
        return [*python, "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m", "zoo.cli"]
    if name == "accelerate":
        options = ["--multi_gpu", "--num_machines", "1", "--num_processes", str(processes), "--mixed_precision", "no"]
        return [*python, "accelerate.commands.launch", *options, "-m", "zoo.cli"]
    return [*python, "zoo.cli"]
