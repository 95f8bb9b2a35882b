"""T9, T11: what only tells of a run cannot end it, and a checkpoint that is whole but not of this run is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.tiny import difference, images, model, timeless, values
from zoo.data.open import open_data
from zoo.data.table import Table
from zoo.engine.rundir import checkpoint_writer, curves
from zoo.errors import SavedModelError

OPTIONS: dict[str, Any] = {"recipe": "full", "epochs": 3, "batch_size": 8, "lr": 1e-2, "quiet": True}


@pytest.fixture(autouse=True)
def _every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_writer, "INTERVAL", 0.0)


def tables() -> tuple[Table, Table]:
    return open_data(images(24)), open_data(images(12, seed=1))


def fit(out: Path, net: Any = None, data: Any = None, **options: Any) -> tuple[Any, Any]:
    net = net or model(head="mlp", hidden=4)
    return net, net.fit(*(data or tables()), out=out, **(OPTIONS | options))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    net, run = fit(tmp_path_factory.mktemp("whole") / "run")
    return values(net), timeless(run.history)


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("part", ["metrics.jsonl", "curves.png", "standard error"])
def test_t9_what_only_tells_of_a_run_cannot_end_it(
    part: str, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if part == "standard error":

        class Broken:
            def write(self, _: str) -> int:
                raise BrokenPipeError(32, "Broken pipe")

            def flush(self) -> None:
                raise BrokenPipeError(32, "Broken pipe")

            def isatty(self) -> bool:
                return False

        monkeypatch.setattr(sys, "stderr", Broken())
        net, _ = fit(tmp_path / "run", quiet=False)
    elif part == "curves.png":
        monkeypatch.setattr(curves, "_mark_phases", lambda *_: 1 / 0)
        net, _ = fit(tmp_path / "run")
        assert "curves.png" in caplog.text
        assert "ZeroDivisionError" in caplog.text
    else:
        net = model(head="mlp", hidden=4)
        net.backbone.register_forward_hook(lambda *_: (tmp_path / "run/metrics.jsonl").mkdir(exist_ok=True))
        fit(tmp_path / "run", net)
        assert "metrics.jsonl" in caplog.text
    assert difference(values(net), whole[0]) == 0.0


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("done") / "run"
    fit(out, keep_checkpoints=True)
    return out


def forge(out: Path, change: Callable[[Path], None]) -> None:
    """Change every checkpoint, and its manifest so that nothing but the content is wrong."""
    for folder in (out / "checkpoint").glob("step-*"):
        change(folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        for name in manifest["files"]:
            content = (folder / name).read_bytes()
            manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        (folder / "manifest.json").write_text(json.dumps(manifest))


def state(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        plain = json.loads((folder / "state.json").read_text())
        plain |= {name: plain[name] | part if isinstance(part, dict) else part for name, part in changes.items()}
        (folder / "state.json").write_text(json.dumps({key: value for key, value in plain.items() if value is not None}))

    return change


def other_model(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    save_file({name: torch.zeros(*tensor.shape, 2) for name, tensor in tensors.items()}, folder / "model.safetensors")


FORGERIES: dict[str, tuple[Callable[[Path], None], str]] = {
    "another architecture": (other_model, "checkpoint"),
    "a key that is missing": (state(best=None), "best"),
    "a value of another type": (state(run={"epoch": "three"}), "checkpoint"),
    "random states of another kind": (state(random={"generators": [1, 2]}), "checkpoint"),
}


@pytest.mark.parametrize("kind", FORGERIES)
def test_t11_a_checkpoint_that_was_made_otherwise_is_refused_with_what_is_wrong(kind: str, done: Path, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path / "run")
    change, told = FORGERIES[kind]
    forge(tmp_path / "run", change)
    with pytest.raises(SavedModelError, match=told):
        fit(tmp_path / "run", resume=True)
