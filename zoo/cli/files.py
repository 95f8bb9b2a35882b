"""Commands on weights files: convert, lock."""

from __future__ import annotations

import argparse
from pathlib import Path

from zoo.cli.output import Output, claim_file
from zoo.cli.parser import Commands
from zoo.errors import count, examples


def register(commands: Commands) -> None:
    """Add the commands of this module."""
    command = commands.add_parser("convert", help="turn a checkpoint of torch.save into safetensors; runs none of its code")
    command.add_argument("file", metavar="FILE", type=Path, help="the checkpoint")
    command.add_argument("--out", metavar="FILE", type=Path, required=True, help="the safetensors file to write")
    command.add_argument("--key", default="", help="entry that holds the tensors, with dots for nesting; found by itself where it is usual")
    command.add_argument("--overwrite", action="store_true", help="replace an existing file")
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.set_defaults(run=convert)
    command = commands.add_parser("lock", help="pin the weights of backbones to a commit and a digest, in a registry.toml")
    command.add_argument("names", metavar="NAME", nargs="+", help="a name from zoo list, or an alias")
    command.add_argument("--out", metavar="FILE", type=Path, help="the registry.toml; the last --registry, else the user's own")
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.set_defaults(run=lock)


def convert(options: argparse.Namespace, out: Output) -> None:
    """Turn a checkpoint into a safetensors file."""
    target = claim_file(options.out, ".safetensors", overwrite=options.overwrite)
    from zoo.weights.pickles import convert as run

    done = run(options.file, target, key=options.key, overwrite=options.overwrite)
    if options.json:
        out.json({"out": str(done.out), "tensors": done.tensors, "skipped": list(done.skipped)})
        return
    print(f"wrote {count(done.tensors, 'tensor')} to {done.out}")
    if done.skipped:
        print(f"left out, because they are no tensors: {examples(done.skipped)}")


def lock(options: argparse.Namespace, out: Output) -> None:
    """Write pins into a registry file, after all of them are resolved."""
    from zoo.registry import lockfile
    from zoo.registry.registry import default_registry
    from zoo.registry.registry_files import user_file

    given = [*options.registry_before, *options.registry]
    path = options.out or Path(given[-1] if given else user_file())
    pins = {}
    for name in options.names:
        entry = default_registry().resolve(name)
        pins[entry.spec.name] = lockfile.resolve(entry.declared or entry.spec.weights, entry.spec.name)
    for name, pin in pins.items():
        lockfile.write(path, name, pin)
    if options.json:
        keys = ("repo", "revision", "file", "sha256", "size", "license")
        out.json({name: {key: getattr(pin, key) for key in keys} for name, pin in pins.items()})
        return
    for name, pin in pins.items():
        print(f"{name}: {pin.repo}@{pin.revision[:12]}/{pin.file}, sha256 {pin.sha256[:12]}…, licence {pin.license}")
    print(f"wrote {count(len(pins), 'pin')} to {path}")
