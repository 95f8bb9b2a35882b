"""Files of the Hub: fetched by the real client from a local server, taken from the cache, refused where they lead elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

import zoo
import zoo.weights.hub_cache
from tests.faults.fake_hub import FakeHub, fill_cache, in_child
from tests.toy import ToyNet
from zoo.declare import Weights
from zoo.errors import WeightsError, WeightsNotFoundError
from zoo.util.file_digest import file_digest
from zoo.weights.hub import fetch
from zoo.weights.load import read, write
from zoo.weights.locate import locate
from zoo.weights.shards import model_digest

COMMIT, OTHER = "a" * 40, "b" * 40
CHILD = """
import json, logging, sys, time
import huggingface_hub.file_download
import zoo.weights.hub
from zoo.errors import ZooError
logging.basicConfig(stream=sys.stderr)
sockets = []
sys.addaudithook(lambda event, arguments: sockets.append(str(arguments)) if event in ("socket.connect", "socket.getaddrinfo") else None)
told = []
for repo, file, revision in json.loads(sys.argv[1]):
    start = time.perf_counter()
    try:
        path = zoo.weights.hub.fetch(repo, file, revision, owner="toy/net")
        what = {"path": str(path), "content": path.read_text(errors="replace")}
    except ZooError as error:
        what = {"error": str(error), "kind": type(error).__name__}
    told.append(what | {"seconds": time.perf_counter() - start})
assert "torch" not in sys.modules
print(json.dumps({"told": told, "sockets": sockets}))
"""
UNSAFE_NAMES = (
    "/etc/passwd",
    "../secret.safetensors",
    "a/../../secret.safetensors",
    "a/..",
    "..",
    ".",
    "a//b",
    "..\\secret.safetensors",
    "C:\\secret.safetensors",
    "C:secret.safetensors",
    "a\x00.safetensors",
    "~/secret.safetensors",
    "",
)
UNSAFE_SHARDS = (
    "/etc/passwd",
    "../other/model.safetensors",
    "a/../../x.safetensors",
    "..\\x.safetensors",
    "C:\\x.safetensors",
    "x\x00",
    "",
    "~/x",
)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub().serving() as hub:
        yield hub


def fetched(wanted: list[tuple[str, str, str]], *, cache: Path, url: str, **environment: str) -> dict[str, list[dict[str, str]]]:
    done = in_child(CHILD, json.dumps(wanted), cache=cache, warm=False, HF_ENDPOINT=url, **environment)
    assert done.returncode == 0, done.stderr
    assert "Retry" not in done.stderr, "the client's own retries are not the user's concern"
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def test_files_are_fetched_once_and_verified_by_the_name_of_their_blob(hub: FakeHub, tmp_path: Path) -> None:
    old = hub.push("acme/net", {"config.json": b"{}", "model.safetensors": b"old", "sub/model.safetensors": b"sub"})
    new = hub.push("acme/net", {"config.json": b"{}", "model.safetensors": b"new"})
    wanted = [("acme/net", "model.safetensors", ""), ("acme/net", "config.json", ""), ("acme/net", "sub/model.safetensors", old)]
    told = fetched(wanted, cache=tmp_path / "hub", url=hub.url)["told"]
    assert [what["content"] for what in told] == ["new", "{}", "sub"]
    assert f"/snapshots/{new}/" in told[0]["path"]
    asked = len(hub.asked)
    fetched([("acme/net", "sub/model.safetensors", old)], cache=tmp_path / "hub", url=hub.url)
    assert len(hub.asked) == asked, "a commit that is in the cache needs no network"


def test_a_blob_is_read_for_its_digest_once_until_it_changes(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {"a": torch.ones(2, 2)}
    files = {f"model-{index}.safetensors": safetensors.torch.save({f"a{index}": torch.full((2, 2), index + 1.0)}) for index in range(2)}
    index = json.dumps({"weight_map": {f"a{index}": name for index, name in enumerate(files)}}).encode()
    files |= {"model.safetensors": safetensors.torch.save(tensors), "sharded.safetensors.index.json": index}
    fill_cache(cache, "acme/net", files)
    read_files: list[str] = []
    monkeypatch.setattr(
        zoo.weights.hub_cache,
        "file_digest",
        lambda path, real=file_digest: read_files.append(path.name) or real(path),
    )
    for name, pin in (("model.safetensors", model_digest), ("sharded.safetensors", model_digest)):
        weights = Weights(repo="acme/net", file=name, revision=COMMIT)
        path = locate(weights, "toy/net")
        locate(replace(weights, sha256=pin(path)), "toy/net")
        read(path)
    assert sorted(read_files) == sorted(hashlib.sha256(content).hexdigest() for content in files.values())
    blob = cache / "models--acme--net" / "blobs" / hashlib.sha256(files["model.safetensors"]).hexdigest()
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    with pytest.raises(WeightsError, match="damaged"):
        locate(Weights(repo="acme/net", revision=COMMIT), "toy/net")


ABSENT = """
import json, sys
import zoo
told = []
for revision in sys.argv[1:]:
    try:
        told.append(zoo.fetch("acme/net", "modules.json", revision, missing_ok=True))
    except zoo.ZooError as error:
        told.append(type(error).__name__)
print(json.dumps(told))
"""


def test_a_file_is_absent_only_where_the_hub_said_so(hub: FakeHub, tmp_path: Path) -> None:
    commit = hub.push("acme/net", {"config.json": b"{}"})
    unknown, around = ["WeightsNotFoundError"] * 2, {"cache": tmp_path / "hub", "HF_ENDPOINT": hub.url}
    fetched([("acme/net", "config.json", "")], cache=tmp_path / "hub", url=hub.url)
    for nowhere in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        assert json.loads(in_child(ABSENT, "main", commit, warm=False, **{**around, **nowhere}).stdout) == unknown
    done = in_child(ABSENT, "main", "v9", warm=False, **around)
    assert json.loads(done.stdout) == [None, "NotOnHubError"], "a revision that does not exist is no file that is absent"
    asked = len(hub.asked)
    for nowhere in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        assert json.loads(in_child(ABSENT, "main", commit, warm=False, **{**around, **nowhere}).stdout) == [None, None]
    assert json.loads(in_child(ABSENT, commit, warm=False, **around).stdout) == [None]
    assert len(hub.asked) == asked, "a commit whose lack of the file is known needs no network"


def test_what_the_hub_does_not_have_and_content_that_it_serves_wrongly_are_told(hub: FakeHub, tmp_path: Path) -> None:
    hub.push("acme/net", {"model.safetensors": b"right" * 10, "other.safetensors": b"right" * 11})
    hub.lies = {"model.safetensors": b"wrong" * 10}
    wanted = [
        ("acme/net", "model.safetensors", ""),
        ("acme/net", "othr.safetensors", ""),
        ("acme/net", "model.safetensors", "v9"),
        ("acme/none", "model.safetensors", ""),
    ]
    damaged, file, revision, repo = fetched(wanted, cache=tmp_path / "hub", url=hub.url)["told"]
    assert damaged["kind"] == "WeightsError"
    assert "is damaged: its sha256" in damaged["error"]
    assert "no such file" in file["error"]
    assert "acme/net@v9/model.safetensors" in revision["error"]
    assert "no such revision" in revision["error"]
    assert "acme/none@main" in repo["error"]


def test_gated_and_missing_repositories_say_so_and_how_to_log_in(hub: FakeHub, tmp_path: Path) -> None:
    commit = hub.push("acme/gated", {"model.safetensors": b"x"})
    hub.refused = {"acme/gated": (401, "GatedRepo"), "acme/refused": (403, "GatedRepo"), "acme/private": (401, "RepoNotFound")}
    wanted = [(repo, "model.safetensors", revision) for repo, revision in [*zip(hub.refused, ("", "", ""), strict=True), ("acme/none", "")]]
    *gated, private, missing = fetched(wanted, cache=tmp_path / "hub", url=hub.url)["told"]
    for answer in gated:
        assert "the repository is gated" in answer["error"]
        assert f"accept its terms at {hub.url}/acme/" in answer["error"]
    for answer in (private, missing):
        assert "there is no such repository, or it is private" in answer["error"]
    assert all("hf auth login, or HF_TOKEN" in answer["error"] for answer in (*gated, private, missing))
    hub.refused = {}
    path = fetched([("acme/gated", "model.safetensors", commit)], cache=tmp_path / "hub", url=hub.url)["told"][0]
    assert path["content"] == "x"


LOCATED = """
import sys
from zoo.declare import Weights
from zoo.weights.locate import locate
try:
    locate(Weights(repo=sys.argv[1]), "toy/net")
except Exception as error:
    print(error)
"""


def test_a_server_that_fails_is_not_taken_for_a_repository_without_the_file(hub: FakeHub, tmp_path: Path) -> None:
    hub.push("acme/pickled", {"pytorch_model.bin": b"x"})
    hub.failing = {"pytorch_model.bin"}
    done = in_child(LOCATED, "acme/pickled", cache=tmp_path / "hub", warm=False, HF_ENDPOINT=hub.url)
    assert "acme/pickled@main/pytorch_model.bin" in done.stdout, done.stderr
    assert "no such file" not in done.stdout
    hub.push("acme/empty", {"config.json": b"{}"})
    hub.failing = set()
    done = in_child(LOCATED, "acme/empty", cache=tmp_path / "hub", warm=False, HF_ENDPOINT=hub.url)
    assert "model.safetensors" in done.stdout.partition("no such file")[0]
    assert "nor has it model.safetensors.index.json, pytorch_model.bin" in done.stdout


LIMITED = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
"""


def test_a_full_and_an_unusable_cache_of_the_hub_are_named(hub: FakeHub, tmp_path: Path) -> None:
    hub.push("acme/net", {"model.safetensors": bytes(100_000)})
    wanted = json.dumps([("acme/net", "model.safetensors", "")])
    full = in_child(LIMITED + CHILD, wanted, cache=tmp_path / "hub", warm=False, HF_ENDPOINT=hub.url)
    (told,) = json.loads(full.stdout.splitlines()[-1])["told"]
    assert told["kind"] == "DiskFullError", told
    assert "it takes 100 kB" in told["error"]
    (tmp_path / "file").write_text("x")
    (told,) = fetched([("acme/net", "model.safetensors", "")], cache=tmp_path / "file", url=hub.url)["told"]
    assert "set HF_HUB_CACHE to a folder that you may write to" in told["error"]


@pytest.mark.parametrize("offline", [True, False])
def test_w14_without_network_the_cache_is_used_and_what_it_lacks_is_named_at_once(tmp_path: Path, offline: bool) -> None:
    cache = tmp_path / "hub"
    fill_cache(cache, "acme/net", {"model.safetensors": b"cached"}, commit=COMMIT)
    empty = fill_cache(cache, "acme/moved", {}, commit=OTHER)  # the branch is known, its snapshot was removed
    wanted = [
        ("acme/none", "model.safetensors", ""),
        ("acme/net", "model.safetensors", OTHER),
        ("acme/moved", "model.safetensors", ""),
        ("acme/net", "model.safetensors", "main"),
        ("acme/net", "model.safetensors", COMMIT),
        ("acme/net", "modle.safetensors", ""),
    ]
    assert not empty.exists()
    switch = {"HF_HUB_OFFLINE": "1"} if offline else {}
    done = fetched(wanted, cache=cache, url="http://127.0.0.1:9", **switch)
    none, pinned, moved, main, commit, misspelt = done["told"]
    assert "acme/none@main/model.safetensors" in none["error"]
    assert f"copy the folder models--acme--none of its cache of the Hub to {str(cache / 'models--acme--none')!r}" in none["error"]
    assert f"acme/net@{OTHER}/model.safetensors" in pinned["error"]
    assert f"the cache has this file at other commits: {COMMIT[:12]}" in pinned["error"]
    assert f"the cache knows main as {OTHER[:12]}" in moved["error"]
    assert main["content"] == commit["content"] == "cached"
    assert "did you mean 'model.safetensors'" in misspelt["error"]
    assert max(float(what["seconds"]) for what in done["told"]) < 1
    assert not (offline and done["sockets"]), "the network was tried"


@pytest.mark.parametrize("name", UNSAFE_NAMES)
def test_w5_a_file_name_that_could_leave_the_cache_is_refused(cache: Path, name: str) -> None:
    (cache.parent / "secret.safetensors").write_bytes(b"secret")
    fill_cache(cache, "acme/net", {"model.safetensors": b"x"})
    if not name:  # a declaration without a file is refused when it is made
        with pytest.raises(WeightsError, match="refused as names"):
            fetch("acme/net", name)
        return
    for get in (lambda: fetch("acme/net", name), lambda: locate(Weights(repo="acme/net", file=name), "toy/net")):
        with pytest.raises(WeightsError, match="refused as names of the Hub"):
            get()
    with pytest.raises(WeightsError, match="refused as names"):
        fetch("acme/net", "model.safetensors", name)


@pytest.mark.parametrize("repo", ["../x", "/etc", "a/b/c", "a--b/c", "a/..", "", "C:\\x", "."])
def test_w5_a_repository_that_is_no_repository_is_refused(cache: Path, repo: str) -> None:
    with pytest.raises(WeightsError, match="not of the form 'owner/name'"):
        fetch(repo, "model.safetensors")


@pytest.mark.parametrize("name", UNSAFE_SHARDS)
def test_w5_a_shard_outside_the_folder_is_refused(tmp_path: Path, cache: Path, name: str) -> None:
    index = json.dumps({"weight_map": {"a": name}}).encode()
    for folder in (tmp_path / "local", fill_cache(cache, "acme/net", {"model.safetensors.index.json": index})):
        folder.mkdir(exist_ok=True)
        path = folder / "model.safetensors.index.json"
        if not path.exists():
            path.write_bytes(index)
        with pytest.raises(WeightsError, match="names shards that are refused"):
            zoo.get("zoo/glyphnet", weights=path).build()
    with pytest.raises(WeightsError, match="names shards that are refused"):
        locate(Weights(repo="acme/net"), "toy/net")


@pytest.mark.parametrize("target", ["outside", "dangling", "other repository"])
def test_w5_a_link_that_leads_out_of_the_repositorys_blobs_is_refused(tmp_path: Path, cache: Path, target: str) -> None:
    link = fill_cache(cache, "acme/net", {"model.safetensors": b"x"}) / "model.safetensors"
    other = fill_cache(cache, "acme/other", {"model.safetensors": b"y"}) / "model.safetensors"
    (tmp_path / "secret").write_bytes(b"secret")
    link.unlink()
    link.symlink_to({"outside": tmp_path / "secret", "dangling": cache / "nothing", "other repository": other.resolve()}[target])
    for get in (lambda: fetch("acme/net", "model.safetensors"), lambda: locate(Weights(file=str(link)), "toy/net")):
        with pytest.raises((WeightsError, WeightsNotFoundError), match=r"outside the cache|does not exist|there is no weights file"):
            get()


def test_w5_a_shard_that_is_a_link_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.safetensors").write_bytes(safetensors.torch.save(ToyNet().state_dict()))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "part.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "part.safetensors"}}))
    with pytest.raises(WeightsError, match="leads out of its folder"):
        zoo.get("zoo/glyphnet", weights=folder).build()


@pytest.mark.parametrize("how", ["symlink", "hardlink"])
@pytest.mark.usefixtures("toys")
def test_w6_saving_over_a_link_into_the_cache_replaces_the_link_only(tmp_path: Path, cache: Path, how: str) -> None:
    files = {"model.safetensors": b"weights", "config.json": b"{}", "README.md": b"card"}
    snapshot = fill_cache(cache, "acme/net", files)
    blobs = [(snapshot / name).resolve() for name in files]
    folder = tmp_path / "saved"
    folder.mkdir()
    for blob, name in zip(blobs, files, strict=True):
        (folder / name).symlink_to(blob) if how == "symlink" else os.link(blob, folder / name)
    zoo.get("toy/net", weights=False).adapt(2).save(folder, overwrite=True)
    write(ToyNet().state_dict(), folder / "model.safetensors")
    assert [blob.read_bytes() for blob in blobs] == list(files.values())
    assert not any((folder / name).is_symlink() for name in files)


def test_a_cache_without_links_is_read_too(cache: Path) -> None:
    link = fill_cache(cache, "acme/net", {"config.json": b"{}"}) / "config.json"
    content = link.read_bytes()
    link.unlink()
    link.write_bytes(content)
    assert zoo.fetch("acme/net", "config.json") == link
