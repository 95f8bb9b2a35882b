"""Commands on weights files: convert, lock, download, cache."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.cli.arguments.parser import Commands
from zoo.cli.output.stdout import Output, claim_file, table
from zoo.declare import Text
from zoo.errors import DiskFullError, OptionError, OutputPermissionError, WeightsNotFoundError, ZooError, count, examples, fault_list
from zoo.util.atomic_write import cache_folder
from zoo.util.numbers import in_units

if TYPE_CHECKING:
    from zoo.declare import BackboneSpec
    from zoo.engine.cache.feature_files import Stored
    from zoo.registry.registry import Entry
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


def _resolved(names: Sequence[str]) -> list[Entry]:
    """Return the entries of several names, each once.

    Raises:
        ZooError: For all names that are not known or have no weights, of the class of the first fault.
    """
    from zoo.registry.registry import default_registry

    found, faults = dict[str, "Entry"](), list[ZooError]()
    for name in dict.fromkeys(names):
        try:
            entry = default_registry().resolve(name)
            if entry.spec.weights is None:
                raise WeightsNotFoundError(f"{entry.spec.name} declares no pretrained weights; zoo list --pretrained shows those that do")
            found[entry.spec.name] = entry
        except ZooError as error:
            faults.append(error)
    if len(faults) > 1:
        headline = f"{len(faults)} of {count(len(names), 'name')} cannot be used, and nothing was fetched:"
        raise type(faults[0])(fault_list(headline, list(map(str, faults))))
    if faults:
        raise faults[0]
    return list(found.values())


def lock(options: argparse.Namespace, out: Output) -> None:
    """Write pins into a registry file, after all of them are resolved."""
    from zoo.registry import lockfile
    from zoo.registry.registry_files import user_file

    given = [*options.registry_before, *options.registry]
    wanted = options.out or Path(given[-1] if given else user_file())
    path = claim_file(wanted, wanted.suffix.lower() or ".toml", overwrite=True)
    entries = _resolved(options.names)
    pins = {entry.spec.name: lockfile.resolve(entry.declared or entry.spec.weights, entry.spec.name) for entry in entries}
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
    """Fetch and convert weights, with the tokenizers of texts; those that are on disk already are only verified.

    A name that cannot be fetched does not keep the others from it.

    Raises:
        ZooError: Before anything is fetched, for all names that are not known; else for all that could not be fetched.
    """
    entries = _resolved(options.names)  # all of them before gigabytes are fetched
    found, failed = dict[str, Path](), list[ZooError]()
    for entry in entries:
        spec = entry.spec
        assert spec.weights is not None, "checked above"
        if not options.json:  # before gigabytes are fetched
            print(f"{spec.name}: licence {spec.weights.license}, from {spec.weights.place}", flush=True)
        try:
            found[spec.name] = _fetched(spec)
        except (DiskFullError, OutputPermissionError):  # the next one would end in the same way
            raise
        except ZooError as error:
            failed.append(error)
            continue
        if not options.json:
            print(f"  {found[spec.name]}")
    if options.json and found:
        out.json({name: str(path) for name, path in found.items()})
    if len(failed) > 1:
        headline = f"{len(failed)} of {count(len(entries), 'name')} cannot be fetched:"
        raise type(failed[0])(fault_list(headline, list(map(str, failed))))
    if failed:
        raise failed[0]


def _fetched(spec: BackboneSpec) -> Path:
    """Return the local path of weights, after the files of a tokenizer are there as well."""
    from zoo.weights.locate import locate

    assert spec.weights is not None, "checked by the caller"
    path = locate(spec.weights, spec.name)
    if isinstance(spec.inputs, Text) and spec.inputs.tokenizer:
        from zoo.data.texts.tokenizers import open_tokenizer

        open_tokenizer(spec.inputs)
    return path


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
    from zoo.engine.output.finished import prune_finished
    from zoo.weights.cache import entries, prune

    if cache_folder().exists() and not cache_folder().is_dir():
        raise OutputPermissionError(f"zoo's cache {str(cache_folder())!r} is a file; remove it, or set ZOO_CACHE to a folder")
    from zoo.weights.cache_errors import cache_errors

    if options.prune is None:
        found = entries() + _of_features(stored_features())
    elif options.prune >= 0:
        limit = time.time() - 86400 * options.prune
        found, busy = prune(limit)
        with cache_errors(""):
            found += _of_features(prune_features(limit))
            prune_finished(limit)
        if busy:
            print(f"kept, because another process is using them: {examples([str(path) for path in busy])}", file=sys.stderr)
    else:
        raise OptionError(f"--prune is {options.prune:g}; it must be a number of days, 0 or more")
    if options.json:
        out.json([entry._asdict() for entry in found])
        return
    if not found:
        print(f"{'nothing to remove' if options.prune is not None else 'the cache is empty'}: {cache_folder()}")
        print(_hub_cache())
        return
    rows = [(entry.kind, entry.name, in_units(entry.size), time.strftime("%Y-%m-%d", time.localtime(entry.used))) for entry in found]
    print(table(rows, ("kind", "what", "size", "last used"), right=(2,)))
    total = f"{count(len(found), 'entry')}, {in_units(sum(entry.size for entry in found))}, in {cache_folder()}"
    print(f"removed {total}" if options.prune is not None else f"{total}\n{_hub_cache()}")


def _hub_cache() -> str:
    """Return where the files of the Hub are, and the command that lists them, as it can be typed here."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    if not folder.is_dir():  # where the client's command has an error instead of an empty list
        return f"Files of the Hub would be in its own cache, {folder}, which does not exist yet"
    beside = Path(sys.executable).with_name("hf")
    command = str(beside) if shutil.which("hf") is None and beside.exists() else "hf"
    return f"Files of the Hub are in its own cache, {folder}: {command} cache ls"
