"""Pruning of zoo's own cache of weights: safe beside a running download, and tidy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.faults.file_server import FileServer
from tests.toy import ToyNet
from zoo.cli import main
from zoo.declare import Weights
from zoo.engine.cache.feature_files import _path, read_features, write_features
from zoo.errors import OutputPermissionError
from zoo.weights.cache import entries, prune
from zoo.weights.converted import converted_folder
from zoo.weights.entry_lock import entry_lock, remove_lock
from zoo.weights.locate import locate
from zoo.weights.urls.download import download, downloads_folder, locked


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def fetched(url: str) -> Path:
    with locked(url):
        return download(url, "toy/net").path


def later() -> float:
    return time.time() + 60


def test_a_running_download_is_kept_and_ends_well(server: FileServer, own_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    began, go_on = threading.Event(), threading.Event()

    def slow(handler: Any) -> bool:
        began.set()
        assert go_on.wait(30)
        return False  # answered as usual

    server.files["/x.bin"], server.files["/old.bin"] = b"new" * 1000, b"old"
    old = fetched(f"{server.url}/old.bin")
    server.answer = slow
    done: list[Path] = []
    running = threading.Thread(target=lambda: done.append(fetched(f"{server.url}/x.bin")))
    running.start()
    assert began.wait(30)
    with pytest.raises(SystemExit) as stopped:
        main(["cache", "--prune", "0"])
    assert stopped.value.code == 0
    told = capsys.readouterr()
    assert "removed 1 entry" in told.out
    assert "another process is using" in told.err
    assert not old.exists()
    go_on.set()
    running.join(30)
    assert done[0].read_bytes() == b"new" * 1000
    assert prune(later()).busy == []
    assert not done[0].exists()


def test_nothing_but_the_records_of_downloads_is_left(server: FileServer, own_cache: Path) -> None:
    torch.save(ToyNet().state_dict(), own_cache.parent / "net.pt")
    server.files["/net.pt"], server.files["/x.bin"] = (own_cache.parent / "net.pt").read_bytes(), b"x" * 9
    locate(Weights(url=f"{server.url}/net.pt"), "toy/net")
    fetched(f"{server.url}/x.bin")
    with locked("https://example.org/never-fetched"):
        pass
    for lock in (converted_folder() / "0123.lock", next(downloads_folder().glob("*/x.bin")).with_name("lock")):  # of earlier versions
        lock.touch()
    assert sorted(entry.kind for entry in entries()) == ["converted", "download"]
    assert [entry.kind for entry in prune(later()).removed] == ["converted", "download"]
    assert left(own_cache) == ["source.json", "source.json"]
    assert len(list(downloads_folder().iterdir())) == 2
    assert list(converted_folder().iterdir()) == []
    assert prune(later()) == ([], [])


def test_what_was_used_since_is_kept(server: FileServer, own_cache: Path) -> None:
    server.files["/a.bin"], server.files["/b.bin"] = b"a" * 7, b"b" * 8
    a, b = (fetched(f"{server.url}/{name}.bin") for name in "ab")
    os.utime(a, (1e9, 1e9))
    assert [entry.size for entry in prune(1.5e9).removed] == [7]
    assert (a.exists(), b.exists()) == (False, True)
    assert fetched(f"{server.url}/a.bin") == a


def test_a_lock_that_is_removed_again_and_again_still_excludes(own_cache: Path) -> None:
    inside, most = list[int](), list[int]()

    def enter(number: int) -> None:
        for _ in range(15):
            with entry_lock(own_cache / "entry"):
                inside.append(number)
                time.sleep(0.001)
                most.append(len(inside))
                remove_lock(own_cache / "entry")
                inside.remove(number)

    threads = [threading.Thread(target=enter, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1] * 60
    assert left(own_cache) == []


def test_a_file_that_cannot_be_removed_is_one_error_with_its_remedy(server: FileServer, own_cache: Path) -> None:
    server.files["/x.bin"] = b"x" * 9
    below = fetched(f"{server.url}/x.bin").with_name("below")
    below.mkdir()
    with pytest.raises(OutputPermissionError, match=r"below'\); remove what is in the way, or set ZOO_CACHE"):
        prune(later())


def test_the_features_of_a_ranking_are_listed_and_pruned_by_their_last_use(own_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for key in ("old", "new"):
        write_features(key, torch.ones(3, 4))
    folder = own_cache / "features"
    (old,) = (path for path in folder.iterdir() if read_features("new") is not None and path != _path("new"))
    os.utime(old, (time.time() - 10 * 86400,) * 2)
    part = folder / f".{old.name}.abcd.part"
    part.touch()
    size = sum(path.stat().st_size for path in folder.iterdir())

    def told(*words: str) -> Any:
        with pytest.raises(SystemExit) as stopped:
            main(["cache", *words, "--json"])
        assert stopped.value.code == 0
        return json.loads(capsys.readouterr().out)

    (entry,) = told()
    assert (entry["kind"], entry["size"], entry["folder"]) == ("features", size, str(folder))
    assert told("--prune", "5")[0]["name"] == "1 pass of backbones over samples"
    assert left(folder) == sorted([_path("new").name, part.name]), "what is being written stays"
    os.utime(part, (time.time() - 7200,) * 2)
    told("--prune", "0")
    assert not left(folder)
    assert told() == []


def test_features_are_listed_without_torch() -> None:
    code = "import sys, zoo.engine.cache.feature_files as f; f.stored_features(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_hubs_own_cache_is_named_with_a_command_that_works(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def told() -> str:
        with pytest.raises(SystemExit):
            main(["cache"])
        return capsys.readouterr().out.splitlines()[-1]

    assert told() == f"Files of the Hub would be in its own cache, {tmp_path / 'hub'}, which does not exist yet"
    (tmp_path / "hub").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))  # without the client's program
    before, command = told().split(": ")
    assert before == f"Files of the Hub are in its own cache, {tmp_path / 'hub'}"
    done = subprocess.run(command.split(), env={**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub")}, capture_output=True, check=False)
    assert done.returncode == 0
