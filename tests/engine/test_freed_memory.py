"""Large blocks are reused while a network runs on the CPU, and given back after."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest
import torch

from tests.engine.tiny import model
from zoo.engine.runtime import freed_memory
from zoo.engine.runtime.device import placed

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")

# A process of its own: what a heap holds already decides what it can reuse.
BLOCKS = """
import json, resource
from pathlib import Path
from zoo.engine.runtime.freed_memory import freed_memory_kept

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        b"x" * (96 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize() >> 20

found = {"usual": faults(), "before": resident()}
with freed_memory_kept():
    with freed_memory_kept():
        faults()
    found |= {"kept": faults(), "held": resident()}
print(json.dumps(found | {"after": resident()}))
"""


def blocks(**environment: str) -> dict[str, int]:
    """Return page faults of blocks of 96 MiB that are filled and freed, and MiB of the process, in and outside the context."""
    done = subprocess.run([sys.executable, "-c", BLOCKS], env=os.environ | environment, capture_output=True, text=True, check=True)
    found: dict[str, int] = json.loads(done.stdout)
    return found


def test_freed_blocks_are_reused_until_the_outermost_context_ends() -> None:
    found = blocks()
    assert found["kept"] < found["usual"] / 4
    assert found["held"] > found["before"] + 90
    assert found["after"] < found["before"] + 10


def test_an_environment_that_tunes_malloc_is_left_alone() -> None:
    found = blocks(MALLOC_TOP_PAD_="4096")
    assert found["kept"] > found["usual"] / 2


def test_it_is_in_force_while_a_model_is_placed_on_the_cpu() -> None:
    with placed(model(), torch.device("cpu")):
        assert freed_memory._open == 1
    assert freed_memory._open == 0
