"""The plan of the house, proved on the source: who may import whom, what must stay light, and where bytes may enter."""

from __future__ import annotations

import ast
import functools
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import pytest

import zoo

ROOT = Path(__file__).resolve().parents[1]

# A module imports strictly lower floors, or modules of its own room. The entry of a module is its own, or that of the nearest
# package that has one; where a room stands on several floors, its modules are listed.
FLOORS = {
    "zoo.errors": 0.0,
    "zoo.util": 0.5,
    "zoo.declare": 1.0,
    "zoo.tasks.losses": 1.0,
    "zoo.tasks.task": 1.1,
    "zoo.hookspecs": 2.0,
    "zoo.weights.safetensors_header": 2.0,
    "zoo.weights.entry_lock": 2.0,
    "zoo.weights.hub_cache": 2.0,
    "zoo.weights.hub": 2.1,
    "zoo.weights.urls": 2.2,
    "zoo.weights.shards": 2.2,
    "zoo.weights.cache_errors": 2.1,
    "zoo.weights.pickled.archive_check": 2.2,
    "zoo.weights.pickled.checkpoint_names": 2.2,
    "zoo.weights.pickled.pickle_scan": 2.2,
    "zoo.weights.converted": 2.3,
    "zoo.weights.cache": 2.4,
    "zoo.weights.locate": 2.4,
    "zoo.weights.given": 2.45,
    "zoo.plugins": 2.3,
    "zoo.registry": 2.5,
    "zoo.data.sources.cells": 2.5,
    "zoo.data.unreadable_input": 2.5,
    "zoo.data.table": 2.5,
    "zoo.data.raw": 2.6,
    "zoo.tasks": 2.7,
    "zoo.trust": 2.8,
    "zoo.models.own_names": 2.9,
    "zoo.models.checks.misplaced": 2.9,
    "zoo.models.build_options": 2.95,
    "zoo.models.pairs.prompts": 2.9,
    "zoo.models.pairs.towers": 2.9,
    "zoo.models.layers": 3.0,
    "zoo.models.construct": 3.1,
    "zoo.weights.copy_read": 3.0,
    "zoo.weights.load": 3.1,
    "zoo.weights.pickled.records": 3.0,
    "zoo.weights.pickled.inert_unpickler": 3.1,
    "zoo.weights.pickled.convert": 3.2,
    "zoo.data": 3.0,
    "zoo.tuning": 4.0,
    "zoo.models.pooling": 3.95,
    "zoo.models.heads": 4.0,
    "zoo.models.backbone": 5.0,
    "zoo.models.checks": 5.1,
    "zoo.models.pairs.zero_shot": 5.1,
    "zoo.models.task_model": 5.2,
    "zoo.models.adapt": 5.25,
    "zoo.models.wrap": 5.2,
    "zoo.models.ensemble": 5.25,
    "zoo.saved": 5.3,
    "zoo.models.find": 5.35,
    "zoo.engine.runtime": 6.0,
    "zoo.engine.options": 6.1,
    "zoo.engine.distributed": 6.2,
    "zoo.engine.loading": 6.3,
    "zoo.engine.inference": 6.4,
    "zoo.engine.calibration": 6.5,
    "zoo.engine.rundir": 6.4,
    "zoo.engine.optim": 6.5,
    "zoo.engine.solved": 6.55,
    "zoo.engine.cache": 6.5,
    "zoo.engine.output": 6.5,
    "zoo.engine.objective": 6.58,
    "zoo.engine.train": 6.6,
    "zoo.engine.preview": 6.7,
    "zoo.select": 7.0,
    "zoo.transfer": 7.1,
    "zoo.report": 7.0,
    "zoo.builtin": 7.0,
    "zoo.cli": 8.0,
    "zoo.testing": 8.0,
}
# Doors that users type: inside a function only, so that importing the lower module never pulls in the upper one.
DOORS = {
    ("zoo.weights.converted", "zoo.weights.pickled.convert"): "the conversion of a checkpoint, which needs torch",
    ("zoo.models.backbone", "zoo.models.adapt"): "Backbone.adapt",
    ("zoo.models.backbone", "zoo.transfer.pretraining.pretrain"): "Backbone.pretrain",
    ("zoo.models.backbone", "zoo.transfer.method"): "the type of Backbone.pretrain(method=…)",
    ("zoo.models.backbone", "zoo.models.task_model"): "the type that Backbone.adapt returns",
    ("zoo.models.task_model", "zoo.saved.save"): "TaskModel.save",
    ("zoo.saved.load", "zoo.saved.lora_files"): "zoo.load(folder of a LoRA)",
    ("zoo.saved.load", "zoo.saved.ensemble"): "zoo.load(folder of an ensemble)",
    ("zoo.models.ensemble", "zoo.saved.ensemble"): "Ensemble.save",
    ("zoo.models.task_model", "zoo.engine.train.fit"): "TaskModel.fit",
    ("zoo.models.task_model", "zoo.select.recipe_search.auto"): "TaskModel.fit(recipe='auto')",
    ("zoo.models.task_model", "zoo.select.recipe_search.plan"): "TaskModel.plan(recipe='auto'), and the type that it returns",
    ("zoo.models.task_model", "zoo.select.negative_transfer"): "TaskModel.fit(baselines=True)",
    ("zoo.models.task_model", "zoo.transfer.domain.choosing.auto"): "TaskModel.fit(objective=DomainAdaptation(target))",
    ("zoo.models.task_model", "zoo.engine.options.recipe"): "the type of TaskModel.fit(recipe=…)",
    ("zoo.models.task_model", "zoo.engine.objective.objective"): "the type of TaskModel.fit(objective=…)",
    ("zoo.models.task_model", "zoo.engine.objective.supervised"): "the type of TaskModel.fit(objective=…)",
    ("zoo.models.task_model", "zoo.engine.loading.samples"): "TaskModel.transform",
    ("zoo.models.task_model", "zoo.engine.rundir.run_folder"): "the type that TaskModel.fit returns",
    ("zoo.models.task_model", "zoo.engine.preview.preview"): "TaskModel.plan",
    ("zoo.models.task_model", "zoo.engine.preview.report"): "the type that TaskModel.plan returns",
    ("zoo.models.task_model", "zoo.engine.inference.evaluate"): "TaskModel.evaluate",
    ("zoo.models.task_model", "zoo.engine.inference.evaluation"): "the type that TaskModel.evaluate returns",
    ("zoo.models.task_model", "zoo.engine.calibration.calibrate"): "TaskModel.calibrate, and the type that it returns",
    ("zoo.models.task_model", "zoo.engine.output.write"): "TaskModel.predict_to_file, embed_to_file",
    ("zoo.models.task_model", "zoo.engine.inference.predict"): "TaskModel.predict, predict_proba, embed",
}
MOST_FILES = 13  # of a room, at any depth
LARGER = {"zoo/cli/commands": "a module per group of commands", "zoo/tuning": "a module per technique"}
LIGHT = {"zoo", "zoo.cli", *(place for place, floor in FLOORS.items() if floor < 3)}  # no torch at the top of these
HEAVY = {
    "accelerate",
    "datasets",
    "matplotlib",
    "optuna",
    "pandas",
    "peft",
    "pyarrow",
    "scipy",
    "sklearn",
    "timm",
    "torch",
    "torchvision",
    "transformers",
}
HEAVY |= {"monai", "nibabel", "pydicom", "torchxrayvision"}
TORCH_ONLY = {"torch"}  # from floor 3 on, torch may stand at the top of a module, nothing else that is heavy

Where = Literal["module", "function", "typing"]


class Import(NamedTuple):
    module: str
    target: str
    where: Where
    line: int

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target} ({self.where})"


def name_of(path: Path, base: Path = ROOT) -> str:
    parts = path.relative_to(base).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def sources() -> dict[str, ast.Module]:
    return {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "zoo").rglob("*.py"))}


@functools.cache
def plugin_sources() -> dict[Path, ast.Module]:
    files = [path for path in (ROOT / "plugins").glob("*/*/**/*.py") if ".venv" not in path.parts]
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(files)}


def targets(node: ast.Import | ast.ImportFrom) -> list[str]:
    """The modules an import statement names; ``from zoo.models import layers`` names zoo.models.layers."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    module = node.module or ""
    return [f"{module}.{alias.name}" if f"{module}.{alias.name}" in sources() else module for alias in node.names]


def imports(module: str, tree: ast.AST, where: Where = "module") -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert not getattr(node, "level", 0), f"{module}:{node.lineno} uses a relative import"
            yield from (Import(module, target, where, node.lineno) for target in targets(node))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports(module, node, "function")
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imports(module, ast.Module(node.body, []), "typing")
            yield from imports(module, ast.Module(node.orelse, []), where)
        else:
            yield from imports(module, node, where)


@functools.cache
def all_imports() -> list[Import]:
    return [found for module, tree in sources().items() for found in imports(module, tree)]


def place(module: str) -> str:
    """The entry of the floor table that a module belongs to: its own or that of the nearest package that has one."""
    while module not in FLOORS and "." in module:
        module = module.rpartition(".")[0]
    return module


@functools.cache
def is_package(module: str) -> bool:
    return any(other.startswith(f"{module}.") for other in sources())


def internal() -> list[Import]:
    """Imports of one module of zoo by another."""
    found = [found for found in all_imports() if found.target.split(".")[0] == "zoo"]
    # The package page re-exports lazily, and plugins, the built-in one among them, use nothing but it.
    return [found for found in found if "zoo" not in (found.module, found.target)]


def test_every_module_has_a_floor() -> None:
    missing = {module for module in sources() if place(module) not in FLOORS and not is_package(module)} - {"zoo"}
    assert not missing, f"give these a floor in FLOORS: {sorted(missing)}"


def test_every_entry_of_the_floor_table_is_used() -> None:
    later = {"zoo.report"}
    unused = set(FLOORS) - later - {place(module) for module in sources()}
    assert not unused, f"drop these from FLOORS: {sorted(unused)}"


def test_every_import_goes_down_or_through_a_door() -> None:
    wrong = []
    for found in internal():
        source, target = place(found.module), place(found.target)
        down = source == target or FLOORS[target] < FLOORS[source]
        door = (found.module, found.target) in DOORS and found.where != "module"
        if not (down or door):
            wrong.append(str(found))
    assert not wrong, "these imports do not go down a floor:\n" + "\n".join(wrong)


def test_every_door_is_used() -> None:
    used = {(found.module, found.target) for found in internal()}
    assert not set(DOORS) - used, f"drop these from DOORS: {sorted(set(DOORS) - used)}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Function-level imports and those for types only count too; the doors alone may lead back up."""
    graph: dict[str, set[str]] = {}
    for found in internal():
        if found.module != found.target and (found.module, found.target) not in DOORS:
            graph.setdefault(found.module, set()).add(found.target)
    circles = [circle for circle in strong_components(graph) if len(circle) > 1]
    assert not circles, "\n".join(f"these import each other: {', '.join(sorted(circle))}" for circle in circles)


def strong_components(graph: dict[str, set[str]]) -> list[set[str]]:
    """The sets of modules that reach each other (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            position = stack.index(node)
            found.append(set(stack[position:]))
            del stack[position:]

    for node in list(graph):
        if node not in index:
            visit(node)
    return found


def test_no_room_is_overfull() -> None:
    sizes = Counter(file.parent.relative_to(ROOT).as_posix() for file in (ROOT / "zoo").rglob("*.py"))
    assert len(sizes) > 60, "the rooms were not found"
    full = {room for room, size in sizes.items() if size > MOST_FILES}
    assert not full - set(LARGER), f"find a seam in these, which have more than {MOST_FILES} files: {sorted(full - set(LARGER))}"
    assert not set(LARGER) - full, f"drop these from LARGER: {sorted(set(LARGER) - full)}"


def test_a_utility_is_used_by_several_rooms() -> None:
    users: dict[str, set[str]] = {name: set() for name in sources() if name.startswith("zoo.util.")}
    for found in internal():
        if found.target in users and room(found.module) != "zoo.util":
            users[found.target].add(room(found.module))
    single = sorted(name for name, rooms in users.items() if len(rooms) < 2)
    assert not single, f"move these to the room that uses them: {single}"


# State that a module keeps for the whole process, and why it is no cache of ``zoo.util.process_caches``; see docs/decisions.
STATE = {
    "zoo.util.process_caches.CACHES": "the caches themselves",
    "zoo.registry.registry._in_use": "a setting: what names mean; use_registry replaces it",
    "zoo.cli.app._parser": "a function of its arguments",
    "zoo.cli.output.wording._flags": "a setting: the flags of the command that runs",
    "zoo.plugins.loader._refused": "a setting: which modules may not be imported; found anew with the plugins",
    "zoo.engine.rundir.lock._HELD": "open locks: to forget them would let a second run into the folder",
    "zoo.engine.distributed.rendezvous._FOUND": "the place among the launcher's processes, which is given once",
    "zoo.engine.distributed.rendezvous._JOINED": "counts what ranks must count alike",
    "zoo.engine.distributed.heartbeat._STORES": "the launcher's store, which may live in this process",
    "zoo.data.images.codecs.can_read": "a fact of the installation",
    "zoo.data.images.transforms._per_channel": "a function of its arguments",
    "zoo.declare.faults.is_function": "a function of its arguments",
    "zoo.weights.hub_cache._digest": "a function of its arguments, the state of the file among them",
    "zoo.data.splits.patients._remembered": "a function of its arguments, the state of the file among them",
    "zoo.engine.loading.order._cycle": "a function of its arguments",
    "zoo.engine.optim.optimizer._torch_optimizers": "a table of an imported library",
    "zoo.engine.optim.optimizer._timm_optimizers": "a table of an imported library",
}
MUTABLE = ("[]", "{}", "set()", "dict()", "list()", "itertools.count()", "OrderedDict()", "defaultdict(")


def process_wide(module: str, tree: ast.Module) -> Iterator[str]:
    """Names of a module that hold what changes while the process runs: empty containers, objects of a class of its own, caches."""
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and any("cache" in ast.unparse(one) for one in node.decorator_list):
            yield f"{module}.{node.name}"
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            made = isinstance(node.value, ast.Call) and ast.unparse(node.value.func) in classes and not node.value.args
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if made or ast.unparse(node.value).startswith(MUTABLE):
                yield f"{module}.{ast.unparse(target)}"


def test_process_wide_state_stands_in_the_caches_or_has_a_reason() -> None:
    found = {name for module, tree in sources().items() for name in process_wide(module, tree)}
    assert not found - set(STATE), f"keep these in zoo.util.process_caches, or say in STATE why not: {sorted(found - set(STATE))}"
    assert not set(STATE) - found, f"drop these from STATE: {sorted(set(STATE) - found)}"


def test_the_package_page_imports_light_modules_only() -> None:
    found = {found.target for found in imports("zoo", sources()["zoo"]) if found.where == "module" and found.target.startswith("zoo.")}
    assert found <= LIGHT


def test_only_the_package_page_and_plugins_import_the_package_page() -> None:
    public = {"zoo.builtin", "zoo.cli", "zoo.testing", "zoo"}
    wrong = [
        str(found) for found in all_imports() if found.target == "zoo" and found.where != "typing" and room(found.module) not in public
    ]
    assert not wrong, "inside the house, import the module that defines a name:\n" + "\n".join(wrong)


def room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def test_one_technique_never_imports_another() -> None:
    techniques = {module for module in sources() if module.startswith("zoo.tuning.")} - {
        "zoo.tuning.stubs",
        "zoo.tuning.blocks",
        "zoo.tuning.efficient.additions",
        "zoo.tuning.efficient.kinds",
        "zoo.tuning.penalties",
        "zoo.tuning.efficient.targets",
    }  # tools
    wrong = [str(found) for found in all_imports() if found.module in techniques and found.target in techniques]
    assert not wrong, "\n".join(wrong)


def test_nothing_heavy_stands_at_the_top_of_a_module() -> None:
    wrong = []
    for found in all_imports():
        top = found.target.split(".")[0]
        allowed = TORCH_ONLY if place(found.module) not in LIGHT else set()
        if found.where == "module" and top in HEAVY - allowed:
            wrong.append(str(found))
    assert not wrong, "import these inside the functions that need them:\n" + "\n".join(wrong)


LISTING = {
    "import zoo": "import zoo; zoo.list_backbones()",
    "zoo list": "from zoo.cli import main; main(['list', '--json'])",
    "zoo plugins": "from zoo.cli import main; main(['plugins', '--json'])",
    "zoo --help": "from zoo.cli import main; main(['--help'])",
}


@pytest.mark.parametrize("what", LISTING)
def test_listing_imports_no_torch_no_numpy_and_no_model_library(what: str) -> None:
    code = f"""
import json, sys
try:
    {LISTING[what]}
except SystemExit as stop:
    assert not stop.code, stop.code
print()
print(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not {*HEAVY, "numpy"} & set(json.loads(done.stdout.splitlines()[-1]))


def imported_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every ``zoo`` module or name that a file asks for, as a dotted path."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "zoo":
            yield node.lineno, f"zoo.{node.attr}"


def is_test(path: Path) -> bool:
    return "tests" in path.relative_to(ROOT).parts


def is_development(path: Path) -> bool:
    """Whether a file is in no wheel: a test, or a script that makes a catalogue or a page."""
    return is_test(path) or "scripts" in path.relative_to(ROOT).parts


def test_plugins_use_the_public_names_of_zoo_only() -> None:
    public = {"zoo", *(f"zoo.{name}" for name in dir(zoo) if not name.startswith("_"))}
    public -= {f"zoo.{path.stem}" for path in (ROOT / "zoo").iterdir()} - {"zoo.tuning"}
    builtin = {ROOT / f"{name.replace('.', '/')}.py": tree for name, tree in sources().items() if name == "zoo.builtin.glyphnet"}
    wrong = []
    for path, tree in (plugin_sources() | builtin).items():
        for line, name in imported_names(tree):
            testing = is_development(path) and (name == "zoo.testing" or name.startswith("zoo.testing."))
            if name.split(".")[0] == "zoo" and name not in public and not testing:
                wrong.append(f"{path.relative_to(ROOT)}:{line} uses {name}")
    assert not wrong, f"plugins use these names only: {sorted(public)}\n" + "\n".join(wrong)


# Where bytes from disk or Hub become objects. Everything else asks zoo.weights.load.
GATES = {
    "zoo/weights/load.py": {"safe_open", "load_file"},
    "zoo/weights/pickled/convert.py": {"torch.load"},
    "zoo/weights/pickled/inert_unpickler.py": {"pickle"},
}
FORBIDDEN_MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
SAFE = {"allow_pickle": "False", "weights_only": "True", "trust_remote_code": "False"}
READERS = {"safe_open", "load_file", "load_model", "load_state_dict_from_url"}


def openers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            yield from ((node.lineno, name) for name in names if name.split(".")[0] in FORBIDDEN_MODULES or name in READERS)
        elif isinstance(node, ast.Attribute) and (
            node.attr in READERS or ast.unparse(node) in {"torch.load", "torch.hub", "torch.jit.load"}
        ):
            yield node.lineno, node.attr if node.attr in READERS else ast.unparse(node)
        elif isinstance(node, ast.keyword) and node.arg in SAFE and ast.unparse(node.value) != SAFE[node.arg]:
            yield node.value.lineno, f"{node.arg}={ast.unparse(node.value)}"


def test_bytes_become_objects_at_the_one_gate_only() -> None:
    files = [name for name in tracked(".py") if name.startswith(("zoo/", "plugins/")) and not is_test(ROOT / name)]
    wrong = []
    for name in files:
        tree = sources()[name_of(ROOT / name)] if name.startswith("zoo/") else ast.parse((ROOT / name).read_text(encoding="utf-8"))
        wrong += [f"{name}:{line} uses {what}" for line, what in openers(tree) if what not in GATES.get(name, set())]
    assert not wrong, "ask zoo.weights.load instead:\n" + "\n".join(wrong)


@functools.cache
def tracked(*suffixes: str) -> tuple[str, ...]:
    """The files under version control, or, in a tree without it, the files of the packages."""
    done = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=False)
    names = done.stdout.split("\n") if done.returncode == 0 else [str(p.relative_to(ROOT)) for p in ROOT.glob("zoo/**/*")]
    return tuple(name for name in names if name and (ROOT / name).is_file() and (not suffixes or name.endswith(suffixes)))


def text_of(name: str) -> str:
    try:
        return (ROOT / name).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


# Spelt in two halves, so that this file does not find itself.
UNWANTED = {
    "a path of one machine": r"(?<![\w.<-])/" + r"(work|farm|root|tmp|home)/",
    "a mark of unfinished work": r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b",
    "a package index's host": r"(pypi\." + r"org|python" + r"hosted)",
    "a body that is not there": r"raise NotImplemented" + r"Error",
}


@pytest.mark.parametrize("what", UNWANTED)
def test_no_file_contains(what: str) -> None:
    wrong = [
        f"{name}:{number}"
        for name in tracked()
        for number, line in enumerate(text_of(name).split("\n"), 1)
        if re.search(UNWANTED[what], line)
    ]
    assert not wrong, f"{what} stands in {wrong}"
