"""P1: listing of all backbones in a fresh process, against timm's listing; and a registry of 100,000 specs.

Run: python benchmarks/p1_listing.py
"""

from __future__ import annotations

import argparse
import time

from side_by_side import alternate, process_result, report, timed_process

OURS = "import sys; sys.argv = ['zoo', 'list', '--json']; from zoo.cli import main; main()"
PEER = "import timm; print(timm.list_models())"
IMPORTED = """
import contextlib, io, json, sys
sys.argv = ['zoo', 'list', '--json']
from zoo.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main()
print(json.dumps({name: name in sys.modules for name in ('torch', 'timm', 'torchvision', 'transformers', 'pandas')}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    runs = {"zoo list --json": lambda: timed_process(OURS), "timm.list_models()": lambda: timed_process(PEER)}
    report("P1: whole process", alternate(runs, arguments.repeats), ours="zoo list --json")
    imported = [name for name, there in process_result(IMPORTED).items() if there]
    print(f"  heavy modules imported by zoo list: {', '.join(imported) or 'none'}")
    hundred_thousand()


def hundred_thousand() -> None:
    import zoo
    from zoo.registry.registry import Registry

    class Many:
        @zoo.hookimpl
        def zoo_backbones(self) -> list[zoo.BackboneSpec]:
            inputs, features = zoo.Image(size=224), zoo.Features(dim=512)
            layers = {"stem": "conv1"}
            return [
                zoo.BackboneSpec(name=f"many/net{i}", build="many:net", layers=layers, inputs=inputs, features=features)
                for i in range(100_000)
            ]

    start = time.perf_counter()
    registry = Registry(plugins=[Many()], files=[])
    entries = registry.search("net9999*")
    print(f"  100,000 specs declared, registered and searched: {time.perf_counter() - start:.2f} s ({len(entries)} found)")


if __name__ == "__main__":
    main()
