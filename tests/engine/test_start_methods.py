"""Loader processes that are not forked: they load the same bits, and what cannot be sent to them is named before training."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

import zoo
import zoo.builtin
from tests.conftest import ROOT
from tests.engine.rank_work import sentences
from tests.engine.tiny import difference, images, model, values
from tests.toy_text import ToyTextPlugin
from zoo.data.images.augment import Augment
from zoo.data.open import open_data
from zoo.engine.loading.loader import default_workers
from zoo.engine.loading.samples import samples_for
from zoo.engine.loading.start_method import MAIN_GUARD, refuse_second_run, start_method, usable_workers
from zoo.engine.loading.workers import starting_workers
from zoo.errors import DataError, OptionError
from zoo.registry.registry import Registry, use_registry

OTHERS = ("spawn", "forkserver")
FIT: dict[str, Any] = {"recipe": "full", "epochs": 2, "batch_size": 8, "quiet": True, "augment": "light"}


class OwnDataset(torch.utils.data.Dataset[Any]):
    """A dataset of the user's own, at the top level of a module."""

    def __init__(self, pixels: Any, labels: list[str]) -> None:
        self.pixels, self.labels = pixels, labels
        self.turn = multiprocessing.get_context("spawn").Lock()  # can be sent while a process starts, and not otherwise

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, str]:
        with self.turn:
            return PIL.Image.fromarray(self.pixels[index]), self.labels[index]


def brightened(image: PIL.Image.Image) -> PIL.Image.Image:
    """Brighten an image by chance: an augmentation of the user's own."""
    return image.point(lambda value: min(255, value + int(np.random.randint(0, 60))))


@pytest.fixture
def use(request: pytest.FixtureRequest) -> Iterator[Any]:
    yield lambda method: multiprocessing.set_start_method(method, force=True)
    multiprocessing.set_start_method(None, force=True)


@pytest.fixture(autouse=True)
def _texts() -> Iterator[None]:
    use_registry(Registry(plugins=[zoo.builtin, ToyTextPlugin()], files=[]))
    yield
    use_registry()


def test_processes_fork_on_linux_unless_the_program_says_otherwise(use: Any) -> None:
    multiprocessing.set_start_method(None, force=True)
    assert start_method() == ("fork" if sys.platform == "linux" else "spawn")
    assert multiprocessing.get_start_method(allow_none=True) is None or sys.platform != "linux", "the program may still set one"
    for method in OTHERS:
        use(method)
        assert start_method() == method


@pytest.mark.parametrize("method", OTHERS)
def test_what_cannot_be_sent_to_them_is_refused_before_the_run_begins(method: str, use: Any, tmp_path: Path) -> None:
    class Local(OwnDataset):
        pass

    use(method)
    with pytest.raises(OptionError) as caught:
        model().fit(Local(*images(9)), valid=False, workers=2, out=tmp_path / "run", **FIT | {"augment": lambda image: image})
    for fact in ("workers=2", repr(method), "dataset Local", "augmentation", "<lambda>", "workers=0", "'fork'"):
        assert fact in str(caught.value)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    with pytest.raises(OptionError, match="dataset Local"):
        model().predict(Local(*images(9)), workers=2)


def test_the_default_number_of_them_gives_way_where_something_cannot_be_sent(use: Any, caplog: pytest.LogCaptureFixture) -> None:
    parts = {"the augmentation": lambda image: image}
    assert usable_workers(None, 4, parts) == 4, "forked ones are sent nothing"
    use("spawn")
    with caplog.at_level(logging.WARNING):
        assert usable_workers(None, 4, parts) == 0
    assert "the augmentation" in caplog.text
    assert usable_workers(None, 4, {"the shelf": OwnDataset(*images(3))}) == 4


def test_the_default_number_of_them_gives_way_in_a_script_that_would_run_again(
    use: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use("spawn")
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__spec__", None)
    monkeypatch.setattr(main, "__file__", str(tmp_path / "script.py"), raising=False)
    (tmp_path / "script.py").write_text("fit()\n")
    with caplog.at_level(logging.WARNING):
        assert usable_workers(None, 4, {}) == 0
    assert MAIN_GUARD in caplog.text
    assert usable_workers(2, 4, {}) == 2, "asked for: the processes themselves refuse to run the script again"
    (tmp_path / "script.py").write_text("if __name__ == '__main__':\n    fit()\n")
    assert usable_workers(None, 4, {}) == 4


def test_what_a_session_defines_is_not_importable_in_them(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    use("spawn")
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    monkeypatch.setattr(OwnDataset, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "OwnDataset", OwnDataset, raising=False)
    with pytest.raises(OptionError, match="OwnDataset was defined in a session"):
        usable_workers(2, 0, {"the shelf": OwnDataset(*images(3))})


def test_a_process_that_imports_the_main_script_starts_no_second_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    for run in (refuse_second_run, lambda: model().predict(images(3)[0]), lambda: model().fit(images(9), out=tmp_path / "run", **FIT)):
        with pytest.raises(OptionError, match=r"__name__ == '__main__'"):
            run()
    assert not (tmp_path / "run").exists()


def test_samples_are_the_same_bits_after_a_journey_to_another_process() -> None:
    inputs, table = model().inputs, open_data(OwnDataset(*images(6)))
    kinds = [samples_for(inputs, open_data(images(6)), Augment()), samples_for(inputs, open_data(images(6)), Augment(), own=brightened)]
    net = zoo.get("toy/text", weights=False).adapt(2)
    kinds.append(samples_for(net.inputs, open_data(sentences(6), reads="text")))  # type: ignore[arg-type]
    assert len(table) == 6
    for samples in kinds:
        again = pickle.loads(pickle.dumps(samples))
        for index in range(6):
            (x, y, _), (other, same, _) = samples[index], again[index]
            assert x == other if isinstance(x, dict) else torch.equal(x, other)
            assert y == same


def test_cuda_in_a_forked_process_is_an_error_with_its_remedy() -> None:
    def resident(image: Any) -> Any:
        raise RuntimeError("Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, you must use …")

    with pytest.raises(DataError, match=r"sample 0 of the data in memory: CUDA .* forked .*workers=0.*'spawn'"):
        samples_for(model().inputs, open_data(images(3)), Augment(), own=resident)[0]


@pytest.mark.sweep
@pytest.mark.parametrize("method", OTHERS)
@pytest.mark.parametrize("kind", ["arrays", "dataset", "own", "text", "cached"])
def test_a_run_has_the_same_bits_however_its_loader_processes_start(method: str, kind: str, use: Any, tmp_path: Path) -> None:
    data: Any = (images(20), images(8, seed=1))
    options = dict(FIT)
    if kind == "dataset":
        data = tuple(OwnDataset(*part) for part in data)
    elif kind == "own":
        options["augment"] = brightened
    elif kind == "cached":
        options |= {"recipe": "lp-ft", "epochs": 4}
    elif kind == "text":
        data, options = (sentences(20), sentences(8, 1)), {name: value for name, value in FIT.items() if name != "augment"}

    def trained(name: str, workers: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        net = zoo.get("toy/text", weights=False).adapt(2) if kind == "text" else model()
        net.fit(*data, out=tmp_path / name, workers=workers, **options)
        return values(net)

    alone, forked = trained("alone", 0), trained("forked", 2)
    use(method)
    assert difference(trained(method, 2), forked) == 0.0
    assert difference(alone, forked) == 0.0
    assert not multiprocessing.active_children()


SCRIPT = """
import multiprocessing, sys
import numpy as np
import zoo
from tests.engine.tiny import images, model
if multiprocessing.parent_process() is None:
    multiprocessing.set_start_method(sys.argv[1])
model().fit(images(12), valid=False, recipe="full", epochs=1, batch_size=4, workers=2, quiet=True, out=sys.argv[2])
"""


SIGNALLED = """
import multiprocessing, sys, time
from pathlib import Path
from tests.engine.tiny import images, model
from tests.engine.test_start_methods import OwnDataset

class Slow(OwnDataset):
    def __getitem__(self, index):
        if multiprocessing.parent_process() is not None:
            Path(f"mark-{multiprocessing.current_process().pid}").touch()
            time.sleep(0.1)
        return super().__getitem__(index)

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    model().fit(Slow(*images(12)), valid=False, recipe="full", epochs=50, batch_size=4, workers=2, quiet=True, out=sys.argv[2])
"""


@pytest.mark.sweep
@pytest.mark.parametrize("method", ["fork", *OTHERS])
def test_a_signal_to_the_whole_group_stops_the_run_with_a_checkpoint(method: str, tmp_path: Path) -> None:
    script, run = tmp_path / "script.py", tmp_path / "run"
    script.write_text(SIGNALLED)
    with subprocess.Popen(
        [sys.executable, str(script), method, str(run)], cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:  # fmt: skip
        for _ in range(1200):
            if len(list(tmp_path.glob("mark-*"))) == 2:  # all loader processes are past their start
                break
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert "stopped by SIGTERM" in errors
    assert "Traceback" in errors, "the script does not catch it"
    assert "LoaderError" not in errors
    assert any((run / "checkpoint").iterdir())


@pytest.mark.sweep
def test_processes_of_the_programs_own_take_signals_as_ever_after_the_fork_server_was_started(use: Any) -> None:
    use("forkserver")
    with starting_workers("forkserver"):
        pass
    process = multiprocessing.get_context("forkserver").Process(target=time.sleep, args=(60,))
    process.start()
    time.sleep(1)
    process.terminate()
    process.join(10)
    assert process.exitcode == -signal.SIGTERM


@pytest.mark.sweep
@pytest.mark.parametrize("method", OTHERS)
def test_a_script_without_a_guard_ends_with_the_remedy_and_begins_no_second_run(method: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), method, str(tmp_path / "run")],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "LoaderError" in last
    assert MAIN_GUARD in last
    assert [path.name for path in tmp_path.iterdir()] == ["script.py"]


def test_the_default_number_of_loader_processes_follows_device_cores_ranks_and_images(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr("zoo.engine.loading.loader.usable_cores", lambda: 12)
    assert [default_workers(gpu, images) for images in (0, 1, 64, 65, 10_000)] == [0, 1, 1, 2, 12]
    assert default_workers(torch.device("cpu"), 10_000) == 0
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert default_workers(gpu, 10_000) == 3
    monkeypatch.setattr("zoo.engine.loading.loader.usable_cores", lambda: 96)
    assert default_workers(gpu, 10_000) == 16
