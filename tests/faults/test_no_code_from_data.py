"""No file that describes models, whoever wrote it, names code that runs: neither a saved model's, nor a registry's, nor a cache's."""

from __future__ import annotations

import json
import os
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import zoo
import zoo.builtin
from tests.faults.fake_dist import fake_dist, run_python, run_zoo
from tests.toy_text import ToyTextPlugin
from zoo.cli.probe import run_child
from zoo.declare import Weights
from zoo.errors import SavedModelError, WeightsNotFoundError, ZooError
from zoo.registry.registry import Registry, use_registry
from zoo.weights.locate import locate

HOSTILE = "import pathlib; pathlib.Path({marker!r}).touch()"


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that exists once hostile code ran."""
    return tmp_path / "ran"


def hostile_text(marker: Path) -> dict[str, Any]:
    return {"max_length": 5, "tokenizer": "os:system", "files": f"touch {marker}"}


def changed(folder: Path, **fields: Any) -> Path:
    told = json.loads((folder / "config.json").read_text())
    told["zoo"] |= fields
    told["zoo"].pop("fields_sha256", None)  # as whoever forges a folder would
    (folder / "config.json").write_text(json.dumps(told))
    return folder


def from_image_model(tmp_path: Path, marker: Path) -> None:
    folder = zoo.get("zoo/glyphnet", weights=False).adapt(2).save(tmp_path / "saved")
    zoo.load(changed(folder, modality="text", inputs=hostile_text(marker))).predict(["hi"])


def from_text_model(tmp_path: Path, marker: Path) -> None:
    folder = zoo.get("toy/text", weights=False).adapt(2).save(tmp_path / "saved")
    zoo.load(changed(folder, inputs=hostile_text(marker))).predict(["hi"])


def from_registry(tmp_path: Path, marker: Path) -> None:
    inputs = ", ".join(f"{key} = {json.dumps(value)}" for key, value in hostile_text(marker).items())
    path = tmp_path / "registry.toml"
    path.write_text(f'[backbones."local/hostile"]\nbase = "toy/text"\ninputs = {{ {inputs} }}\n')
    use_registry(Registry(plugins=[zoo.builtin, ToyTextPlugin()], files=[path]))
    zoo.get("local/hostile", weights=False).adapt(2).predict(["hi"])


@pytest.mark.parametrize("way", [from_image_model, from_text_model, from_registry])
def test_a_description_names_no_function(way: Callable[[Path, Path], None], tmp_path: Path, marker: Path) -> None:
    use_registry(Registry(plugins=[zoo.builtin, ToyTextPlugin()], files=[]))
    try:
        with pytest.raises(ZooError, match=r"tokenizer|reads text"):
            way(tmp_path, marker)
    finally:
        use_registry()
    assert not marker.exists()


def test_a_saved_text_model_takes_its_length_from_the_folder_and_its_files_from_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_registry(Registry(plugins=[zoo.builtin, ToyTextPlugin()], files=[]))
    try:
        zoo.get("toy/text", weights=False).adapt(2).save(tmp_path / "saved")
        changed(tmp_path / "saved", inputs={"max_length": 7})
        monkeypatch.chdir(tmp_path)
        inputs = zoo.load("saved").inputs
        assert inputs == zoo.Text(max_length=7, tokenizer="tests.toy_tokenizer:open_tokenizer", files=str((tmp_path / "saved").resolve()))
        with pytest.raises(ZooError, match="int"):
            zoo.load(changed(tmp_path / "saved", inputs={"max_length": "many"}))
        with pytest.raises(SavedModelError, match="reads image"):
            zoo.load(changed(tmp_path / "saved", modality="image", inputs={}))
    finally:
        use_registry()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="there are no modes here")
@pytest.mark.parametrize("open_to_others", ["file", "folder"])
def test_a_listing_that_others_can_write_is_not_read(open_to_others: str, tmp_path: Path) -> None:
    site, around = fake_dist(tmp_path / "site", "zoo-alpha", names=["alpha/net"]), {"ZOO_CACHE": str(tmp_path / "cache")}
    assert "alpha/net" in run_zoo("list", "alpha/*", paths=[site], **around).stdout
    (kept,) = (tmp_path / "cache" / "plugins").glob("zoo-alpha*")
    _, forged = kept.read_text().replace("alpha/net", "alpha/evil").replace("zoo_alpha:build", "os:system").split("\n", 1)
    kept.write_text(f"{zlib.crc32(forged.encode()):08x}\n{forged}")
    assert "alpha/evil" in run_zoo("list", "alpha/*", paths=[site], **around).stdout, "the test would show nothing"
    (kept if open_to_others == "file" else kept.parent).chmod(0o777)
    done = run_zoo("list", "alpha/*", paths=[site], **around)
    assert "alpha/net" in done.stdout
    assert "alpha/evil" not in done.stdout


def test_the_package_of_weights_is_not_imported(tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "zoo_marked_weights"
    (package / "below").mkdir(parents=True)
    (package / "__init__.py").write_text(HOSTILE.format(marker=str(marker)))
    (package / "below" / "model.safetensors").write_bytes(b"")
    monkeypatch.syspath_prepend(package.parent)
    assert locate(Weights(package="zoo_marked_weights.below", file="model.safetensors"), "toy/net").is_file()
    assert not marker.exists()
    assert "zoo_marked_weights" not in sys.modules
    with pytest.raises(WeightsNotFoundError, match="'zoo_absent', which is not installed"):
        locate(Weights(package="zoo_absent", file="model.safetensors"), "toy/net")


def test_no_child_imports_what_lies_in_the_working_directory(tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text(HOSTILE.format(marker=str(marker)))
    monkeypatch.chdir(tmp_path)
    code = "import json, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(json.dumps({'told': sys.argv[2]}))"
    assert run_child(code, ["argument"], 60.0) == {"told": "argument"}
    site = fake_dist(tmp_path / "site", "zoo-alpha", names=["alpha/net"])
    main = "import sys; sys.path[:] = [one for one in sys.path if one]; from zoo.cli import main; main(['plugins', 'check', 'alpha'])"
    done = run_python(main, site, cwd=tmp_path, ZOO_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert not marker.exists()
