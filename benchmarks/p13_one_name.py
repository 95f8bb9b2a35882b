"""P13: one name among 100,000 specs of an installed plugin, against the same name without that plugin.

Run: python benchmarks/p13_one_name.py
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from side_by_side import alternate, environment, report, timed_process

PLUGIN = """
import zoo

@zoo.hookimpl
def zoo_backbones():
    for i in range(100_000):
        yield zoo.BackboneSpec(
            name=f"many/net{i}.v{i % 7}", build="zoo_many:net", layers={"stem": "conv1", "last": "fc?"}, parameters=1_000_000 + i,
            inputs=zoo.Image(size=(224, 256, 384)[i % 3]), features=zoo.Features(dim=(512, 768)[i % 2]), options={"depth": i % 50},
            weights=zoo.Weights(repo=f"many/net{i}", revision=f"{i:040x}", license="mit"), metrics={"imagenet-top1": 60 + i % 3000 / 100},
        )
"""
INFO = {
    "METADATA": "Metadata-Version: 2.1\nName: zoo-many\nVersion: 1.0\n",
    "entry_points.txt": "[zoo]\nmany = zoo_many\n",
    "RECORD": "zoo_many.py,,\n",
}
CODE = "import sys; from zoo.cli import main; main(sys.argv[1:])"
WITHOUT = "show zoo/glyphnet, without them"
COMMANDS = {
    WITHOUT: ("--block", "many", "show", "zoo/glyphnet"),
    "show zoo/glyphnet": ("show", "zoo/glyphnet"),
    "show many/net777.v0": ("show", "many/net777.v0"),
    "show zoo/glyphnett (a miss)": ("show", "zoo/glyphnett"),
    "list 'net7777*'": ("list", "net7777*"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        install(Path(folder))
        subprocess.run([sys.executable, "-c", CODE, "list", "--source", "zoo"], check=True, stdout=subprocess.DEVNULL, env=environment())
        runs = {name: partial(timed_miss if "miss" in name else timed_process, CODE, *words) for name, words in COMMANDS.items()}
        report("P13: whole process, 100,000 specs in a cached listing", alternate(runs, arguments.repeats), ours=WITHOUT)


def install(folder: Path) -> None:
    """Put the plugin on the Python path, and the cached listings into the same folder."""
    info = folder / "zoo_many-1.0.dist-info"
    info.mkdir()
    for name, text in INFO.items():
        (info / name).write_text(text, encoding="utf-8")
    (folder / "zoo_many.py").write_text(PLUGIN, encoding="utf-8")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    os.environ["ZOO_CACHE"] = str(folder / "cache")


def timed_miss(code: str, *words: str) -> float:
    """Return the wall time of a command that finds nothing, which is no success."""
    return timed_process(f"import contextlib\nwith contextlib.suppress(SystemExit):\n    {code}", *words)


if __name__ == "__main__":
    main()
