"""Fixtures that every test may use."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

import zoo.builtin
from tests.faults.file_server import FileServer
from tests.undrawn import PICTURES, undrawn
from zoo.registry.registry import Registry, use_registry
from zoo.util.process_caches import CACHES

ROOT = Path(__file__).resolve().parents[1]
# The files that take longest, in this order and before all others, so that the workers end at about the same time.
LONG = (
    *("test_docs.py", "test_objectives.py", "test_plugin_faults.py", "test_ranks.py", "test_medical.py", "test_tryout.py", "test_rank.py"),
    *("test_rank_faults.py", "test_kills.py", "test_command_line.py", "test_cli.py", "test_every_method.py", "test_pins.py"),
    *("test_end_to_end.py", "test_demo.py", "test_conformance.py"),
)
if not os.environ.get("ZOO_TEST_GPU"):  # `make test-gpu` sets it; all else compares bits, or counts what the CPU does
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: a second thread doubles the CPU time of tiny networks


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the longest files first."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage among what is imported, and keep the compiled tests: half of the time that each worker takes to collect them.

    They are kept also where Python is told to keep no compiled modules, but none that a test writes and changes within a second is.
    """
    none_kept = sys.dont_write_bytecode
    sys.dont_write_bytecode = False
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        sys.dont_write_bytecode = none_kept


def pytest_sessionfinish() -> None:
    """Undo ``_old_objects``, as libraries report what is left when the process ends."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's configuration and caches out of the tests, and the tests out of them."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(home / "config"))
        patch.setenv("ZOO_CACHE", str(home / "cache"))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_power_cut() -> Iterator[None]:
    """Wait for no disk: checkpoints are flushed thousands of times, and no test cuts the power. Processes of their own do wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(autouse=True)
def _nothing_shared() -> None:
    """Let no test use what another one left in a cache, such as what the frozen part of a model gave; versions stay as they are."""
    versions = CACHES.get("versions", dict)
    CACHES.clear()
    CACHES.get("versions", lambda: versions)


@pytest.fixture(autouse=True)
def _curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the pictures of a run only where a test looks at them (fixture ``drawn``): they take half of a tiny run."""
    if "drawn" not in request.fixturenames:
        for picture in PICTURES:
            monkeypatch.setattr(picture, undrawn)


@pytest.fixture
def drawn() -> None:
    """Ask for real pictures."""


@pytest.fixture(autouse=True, scope="module")
def _old_objects() -> None:
    """Spare the garbage collector what earlier files imported: a full collection takes half a second beside torch and transformers."""
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and weights beside the checkout."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("no ../shared/data beside this checkout")
    return folder


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty Hub cache, without network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server of files, from which downloads are tried again without a pause."""
    from zoo.weights.urls import transfer

    monkeypatch.setattr(transfer, "PAUSE", 0.0)
    with FileServer().serving() as started:
        yield started


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of zoo's own, which is not made yet."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def toys() -> Iterator[Registry]:
    """A registry that holds the built-in plugin and the toy backbones, in place of the process-wide one."""
    from tests.toy import ToyPlugin

    registry = Registry(plugins=[zoo.builtin, ToyPlugin()], files=[])
    use_registry(registry)
    yield registry
    use_registry()


@pytest.fixture
def only_reads_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that count reads of samples: leave out those by which a table and its augmentation are judged."""
    monkeypatch.setattr("zoo.data.images.float_tensors.sample_inputs", lambda table, **_: [])
    monkeypatch.setattr("zoo.engine.train.trainer.is_nondeterministic", lambda table: False)
    monkeypatch.setattr("zoo.engine.objective.supervised.Supervised.suits_augmentation", lambda *_, **__: True)
