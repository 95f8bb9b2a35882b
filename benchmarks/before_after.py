"""P1 to P5 and P9 of two checkouts, to see whether a change made anything slower.

Each measure is that of its own script, taken alternately from both trees, so that drifts of the machine's speed affect both.
CPU seconds of one thread. Both trees use the packages of the environment that runs this script, except zoo and its plugins.

Run: python benchmarks/before_after.py ../zoo-before
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from side_by_side import alternate, needed, report

HERE = Path(__file__).resolve().parent
DECODE = """
import json, sys, time, torch
from pathlib import Path
from p9_loading import pipelines
torch.set_num_threads(1)
paths = [str(path) for path in sorted(Path(sys.argv[1]).rglob("*.jpg"))][:120]
transform = pipelines()["training"][0]
start = time.process_time()
for path in paths: transform(path)
print(json.dumps({"seconds": time.process_time() - start}))
"""
LIST = "import json, sys; sys.stdout = open('/dev/null', 'w'); from p1_listing import OURS; exec(OURS)"
PROBE = "import sys; from p3_probe import COMMON, MEASURE, ZOO; exec(COMMON + ZOO + MEASURE)"
STEP = "import sys; from p5_step import COMMON, MEASURE, ZOO; exec(COMMON + ZOO + MEASURE)"
LOAD = "import sys; from p2_loading import OURS; exec(OURS)"
SUFFIX = "import json, sys; from p4_top_groups import measure; print(json.dumps(measure('zoo', sys.argv[1], '64', '32', '4', '1')))"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="a checkout of the version to compare with")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rows", nargs="*", help="such as P3 and P5; all by default")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    trees = {"after": HERE.parent, "before": arguments.before.resolve()}
    data = needed(arguments.data).resolve()
    photos = str(data / "images" / "hymenoptera")
    with tempfile.TemporaryDirectory() as folder:
        weights = str(Path(folder) / "resnet50.safetensors")
        rows = {
            "P1: zoo list --json": (LIST, (), ""),
            "P2: ResNet-50 from a local file": (LOAD, ("resnet50", weights), "seconds"),
            "P3: a linear probe": (PROBE, (str(data),), "seconds"),
            "P4: the last stage of ResNet-50": (SUFFIX, ("resnet50-stage",), "cpu"),
            "P4: the last block of a BERT": (SUFFIX, ("bert-block",), "cpu"),
            "P5: a step of full fine-tuning": (STEP, (photos, "192", "2"), "seconds"),
            "P9: decoding and augmenting": (DECODE, (photos,), "seconds"),
        }
        in_tree(trees["after"], "import sys; from p2_loading import MAKE; exec(MAKE)", "resnet50", weights)
        for title, (code, words, key) in rows.items():
            if not arguments.rows or title[:2] in arguments.rows:
                runs = {name: partial(measured, tree, code, *words, key=key) for name, tree in trees.items()}
                report(title, alternate(runs, arguments.repeats), ours="after")


def measured(tree: Path, code: str, *words: str, key: str) -> float:
    """Return the seconds that the code prints under ``key``; without a key the CPU seconds of the process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    printed = in_tree(tree, code, *words)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if not key:
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return float(json.loads(printed.strip().splitlines()[-1])[key])


def in_tree(tree: Path, code: str, *words: str) -> str:
    """Run Python code with the packages and the benchmarks of a tree, and return what it prints."""
    places = [tree, *sorted(tree.glob("plugins/*")), tree / "benchmarks"]
    own = {
        "PYTHONPATH": os.pathsep.join(map(str, places)),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    with tempfile.TemporaryDirectory() as folder:  # -c puts the working directory first on the path
        command = [sys.executable, "-c", code, *words]
        done = subprocess.run(command, env=os.environ | own, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{done.stderr[-3000:]}\nthe process above, of {tree}, ended with {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    main()
