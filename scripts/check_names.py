"""Build every listed backbone at its real size without values, and check it against its declaration.

    python scripts/check_names.py [PATTERN ...]

prints a line per fault and the number of names. A name is right if it builds, its layer groups are a partition of it, its number of
parameters is the declared one, and, with pretrained weights, their place and licence are named. All names take half an hour.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import zoo
from zoo.declare import BackboneSpec
from zoo.models.construct.build import on_meta
from zoo.models.find import find_backbone
from zoo.models.layers import bind
from zoo.plugins.loader import load_function

TOLERANCE = 0.005  # of the number of parameters: some publishers round, or count buffers


def faults(spec: BackboneSpec) -> Iterator[str]:
    """Yield what is wrong with one backbone."""
    with on_meta():
        module = load_function(spec.build)(**spec.options)
    bind(module, spec.layers, name=spec.name)
    number = sum(parameter.numel() for parameter in module.parameters())
    if spec.parameters and abs(number - spec.parameters) > TOLERANCE * spec.parameters:
        yield f"{number:,} parameters, declared {spec.parameters:,}"
    weights = spec.weights
    if weights is not None and not (weights.file or weights.url or weights.repo):
        yield "weights without a file, a repository or a URL"
    if weights is not None and not weights.license:
        yield "weights without a licence, not even 'unknown'"


def main(patterns: list[str]) -> int:
    """Check all names of the patterns; return the number of wrong ones."""
    names = sorted({name for pattern in patterns or ["*"] for name in zoo.list_backbones(pattern)})
    wrong = 0
    for name in names:
        try:
            found = list(faults(find_backbone(name).spec))
        except Exception as error:  # the next name is checked all the same
            found = [f"{type(error).__name__}: {error}"]
        wrong += bool(found)
        for fault in found:
            print(f"{name}: {fault}", flush=True)
    print(f"{len(names)} names, {wrong} wrong")
    return wrong


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))
