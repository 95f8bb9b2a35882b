"""Commands on weights files: convert, lock, download, cache."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.cli.output import Output, claim_file, table
from zoo.cli.parser import Commands
from zoo.errors import OptionError, WeightsNotFoundError, count, examples
from zoo.util.atomic_write import cache_folder, in_units

if TYPE_CHECKING:
    from zoo.engine.cache.feature_files import Stored
    from zoo.weights.cache import CacheEntry


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
    command = commands.add_parser("download", help="fetch the weights of backbones into the caches, for a machine without network")
    command.add_argument("names", metavar="NAME", nargs="+", help="a name from zoo list, or an alias")
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.set_defaults(run=download)
    command = commands.add_parser("cache", help="show what zoo has fetched, converted and computed, or remove it")
    command.add_argument("--prune", metavar="DAYS", type=_days, help="remove what was not used for so many days; 0 removes all")
    command.add_argument("--json", action="store_true", help="print one JSON document")
    command.set_defaults(run=cache)


def _days(word: str) -> float:
    """Read a number of days, also written ``30d``."""
    try:
        return float(word.lower().removesuffix("d"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{word!r} is no number of days, such as 30") from None


def convert(options: argparse.Namespace, out: Output) -> None:
    """Turn a checkpoint into a safetensors file."""
    target = claim_file(options.out, ".safetensors", overwrite=options.overwrite)
    from zoo.weights.pickled.convert import convert as run

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
        keys = ("repo", "revision", "url", "file", "sha256", "converted_sha256", "size", "license")
        out.json({name: {key: getattr(pin, key) for key in keys} for name, pin in pins.items()})
        return
    for name, pin in pins.items():
        source = pin.url or f"{pin.repo}@{pin.revision[:12]}/{pin.file}"
        print(f"{name}: {source}, sha256 {pin.sha256[:12]}…, licence {pin.license}")
    print(f"wrote {count(len(pins), 'pin')} to {path}")


def download(options: argparse.Namespace, out: Output) -> None:
    """Fetch and convert weights; those that are on disk already are only verified."""
    from zoo.registry.registry import default_registry
    from zoo.weights.locate import locate

    found = {}
    for name in options.names:  # all of them before gigabytes are fetched
        spec = default_registry().resolve(name).spec
        if spec.weights is None:
            raise WeightsNotFoundError(f"{spec.name} declares no pretrained weights; zoo list --pretrained shows those that do")
    for name in options.names:
        spec = default_registry().resolve(name).spec
        assert spec.weights is not None, "checked above"
        if not options.json:  # before gigabytes are fetched
            print(f"{spec.name}: licence {spec.weights.license}, from {spec.weights.place}", flush=True)
        found[spec.name] = locate(spec.weights, spec.name)
        if not options.json:
            print(f"  {found[spec.name]}")
    if options.json:
        out.json({name: str(path) for name, path in found.items()})


def _of_features(files: Sequence[Stored]) -> list[CacheEntry]:
    """Return all files of features as one entry; none without files."""
    from zoo.weights.cache import CacheEntry

    if not files:
        return []
    size, used = sum(file.size for file in files), max(file.used for file in files)
    return [CacheEntry("features", f"{count(len(files), 'pass')} of backbones over samples", size, used, files[0].path.parent)]


def cache(options: argparse.Namespace, out: Output) -> None:
    """Show the entries of zoo's own cache of weights and features, and prune it."""
    from zoo.engine.cache.feature_files import prune_features, stored_features
    from zoo.weights.cache import entries, prune
    from zoo.weights.cache_errors import cache_errors

    if options.prune is None:
        found = entries() + _of_features(stored_features())
    elif options.prune >= 0:
        limit = time.time() - 86400 * options.prune
        found, busy = prune(limit)
        with cache_errors(""):
            found += _of_features(prune_features(limit))
        if busy:
            print(f"kept, because another process is using them: {examples([str(path) for path in busy])}", file=sys.stderr)
    else:
        raise OptionError(f"--prune is {options.prune:g}; it must be a number of days, 0 or more")
    if options.json:
        out.json([entry._asdict() for entry in found])
        return
    if not found:
        print(f"{'nothing to remove' if options.prune is not None else 'the cache is empty'}: {cache_folder()}")
        print("Files of the Hub are in its own cache: hf cache ls")
        return
    rows = [(entry.kind, entry.name, in_units(entry.size), time.strftime("%Y-%m-%d", time.localtime(entry.used))) for entry in found]
    print(table(rows, ("kind", "what", "size", "last used"), right=(2,)))
    total = f"{count(len(found), 'entry')}, {in_units(sum(entry.size for entry in found))}, in {cache_folder()}"
    print(f"removed {total}" if options.prune is not None else f"{total}; files of the Hub are in its own cache: hf cache ls")
