"""The benchmark that needs a GPU, tried on the CPU: every path of it, on tiny shapes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clean import ROOT


@pytest.mark.sweep
@pytest.mark.timeout(1200)
def test_the_gpu_benchmark_runs_every_path_on_tiny_shapes_without_a_gpu(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    pytest.importorskip("transformers")
    pytest.importorskip("zoo_timm")
    out = tmp_path / "gpu.json"
    words = ["--device", "cpu", "--tiny", "--steps", "2", "--warmup", "1", "--repeats", "1", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *words],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = {row["row"]: row for row in json.loads(out.read_text(encoding="utf-8"))["rows"]}
    assert len(rows) == 10  # four networks and one that reads files, compiled or not
    for title, row in rows.items():
        for side in ("bare", "ours"):
            # Compiling needs a compiler for C++, which this machine may not have.
            assert row[side].get("rate", 0) > 0 or "compiled" in title, f"{title}, {side}: {row[side]}\n{done.stderr}"
    assert all(row["gflop_per_sample"] > 0 for title, row in rows.items() if title == "ResNet-50")
    assert rows["JPEG files, ResNet-50"]["waiting"] is not None
    assert "| BERT-base |" in done.stdout
