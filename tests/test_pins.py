"""`zoo lock` writes exact weights into a registry file, and every later load keeps to them."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch

import zoo
from tests.faults.fake_dist import fake_dist
from tests.faults.fake_hub import FakeHub, in_child
from tests.faults.file_server import FileServer
from tests.toy import ToyNet, toy_spec
from tests.toy_text import toy_text_spec
from zoo.declare import BackboneSpec, Weights
from zoo.errors import RegistryFileError, WeightsError
from zoo.registry import lockfile
from zoo.registry.registry import Registry, use_registry
from zoo.registry.registry_files import read_files

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

COMMIT, SHA = "a" * 40, "b" * 64
PIN = Weights(repo="acme/net", revision=COMMIT, sha256=SHA, size=7, license="mit")
PLUGIN = """
    import zoo

    @zoo.hookimpl
    def zoo_backbones():
        weights = {"toy/net": "acme/net", "toy/shards": "acme/shards", "toy/plain": ""}
        for name, repo in weights.items():
            yield zoo.BackboneSpec(
                name=name, build="tests.toy:toynet", layers={"stem": ["conv1", "bn1"], "stage": "blocks.*"},
                inputs=zoo.Image(size=16), features=zoo.Features(dim=8), weights=zoo.Weights(repo=repo) if repo else None,
            )
"""
RUN = "import sys; sys.path[:0] = sys.argv[1].split(':'); from zoo.cli import main; main(sys.argv[2:])"
LOAD = """
import json, sys
sys.path[:0] = sys.argv[1].split(":")
import zoo
try:
    told = float(zoo.get(sys.argv[2]).build().conv1.weight.sum())
except zoo.ZooError as error:
    told = str(error)
print(json.dumps(told))
"""


class Plugin:
    @zoo.hookimpl
    def zoo_backbones(self) -> list[BackboneSpec]:
        return [toy_spec(weights=Weights(repo="acme/net")), toy_spec("toy/other", weights=Weights(repo="acme/other", license="mit"))]


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub().serving() as hub:
        yield hub


def registry(tmp_path: Path, text: str, *more: Path) -> Registry:
    path = tmp_path / "registry.toml"
    path.write_text(text)
    return Registry(plugins=[Plugin()], files=[path, *more])


def table(name: str, **changes: object) -> str:
    fields = {"repo": "acme/net", "revision": COMMIT, "sha256": SHA} | changes
    return f'[pins."{name}"]\n' + "".join(f"{key} = {json.dumps(value)}\n" for key, value in fields.items())


@pytest.mark.parametrize("name", ["toy/net", "net", "mine", "local/mine"])
def test_a_pin_applies_to_an_id_to_its_short_name_to_an_alias_and_to_what_is_derived_from_it(tmp_path: Path, name: str) -> None:
    text = '[aliases]\nmine = "toy/net"\n[backbones."local/mine"]\nbase = "toy/net"\ninputs = { size = 32 }\n'
    found = registry(tmp_path, text + table("toy/net", size=7, license="mit")).resolve(name).spec
    assert found.weights == PIN


def test_a_pin_is_listed_with_its_licence_and_keeps_the_declared_one_where_it_has_none(tmp_path: Path) -> None:
    text = table("toy/net", license="mit") + table("toy/other", repo="acme/other")
    found = registry(tmp_path, text).search(license="mit")
    assert {entry.spec.name for entry in found} == {"toy/net", "toy/other"}


def test_a_later_file_overrides_an_earlier_pin(tmp_path: Path) -> None:
    project = tmp_path / "project.toml"
    project.write_text(table("toy/net", revision="c" * 40))
    found = registry(tmp_path, table("toy/net"), project).resolve("toy/net").spec
    assert found.weights is not None
    assert found.weights.revision == "c" * 40


def test_a_pin_of_another_repository_is_not_of_these_weights(tmp_path: Path) -> None:
    found = registry(tmp_path, table("toy/net", repo="acme/older")).resolve("toy/net").spec
    assert found.weights == Weights(repo="acme/net")


def test_comments_around_a_pin_and_a_mark_of_the_encoding_survive_a_new_pin(tmp_path: Path) -> None:
    path = tmp_path / "registry.toml"
    pin = table("toy/net").replace("sha256", "# of this pin\nsha256")
    rest = '# what follows\n[aliases]\n# mine\nmine = "toy/net"\n\n# the end\n'
    path.write_text("# before\n" + pin + "\n" + rest, encoding="utf-8-sig")
    lockfile.write(path, "toy/net", PIN)
    after = path.read_text(encoding="utf-8-sig")
    assert after.startswith("# before\n")
    assert rest in after
    assert "of this pin" not in after
    assert read_files([path]).pins == {"toy/net": PIN}
    path.write_text(table("toy/net") + "\n# the end\n")
    lockfile.write(path, "toy/net", PIN)
    assert path.read_text().startswith("# the end\n")


def test_a_pin_holds_for_the_tokenizer_in_its_repository_too(tmp_path: Path) -> None:
    class Texts:
        @zoo.hookimpl
        def zoo_backbones(self) -> list[BackboneSpec]:
            near, far = zoo.Text(files="acme/net@main"), zoo.Text(files="acme/words")
            weights = Weights(repo="acme/net")
            return [toy_text_spec("toy/net", weights=weights, inputs=near), toy_text_spec("toy/far", weights=weights, inputs=far)]

    path = tmp_path / "registry.toml"
    path.write_text(table("toy/net") + table("toy/far"))
    found = Registry(plugins=[Texts()], files=[path])
    assert found.resolve("toy/net").spec.inputs == zoo.Text(files=f"acme/net@{COMMIT}")
    assert found.resolve("toy/far").spec.inputs == zoo.Text(files="acme/words")


def test_all_faults_of_pins_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "registry.toml"
    path.write_text(
        table("net") + table("toy/a", revision="main") + table("toy/b", sha256="x") + table("toy/c", size="7") + table("toy/d", hash="x")
    )
    with pytest.raises(RegistryFileError) as caught:
        read_files([path])
    for words in ("'net'", "revision is 'main'", "sha256 is 'x'", "size must be", "hash"):
        assert words in str(caught.value)


def test_a_pin_is_written_into_a_file_and_all_else_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "registry.toml"
    lockfile.write(path, "toy/net", PIN)
    assert read_files([path]).pins == {"toy/net": PIN}
    text = (
        '# mine\n[aliases]\nmine = "toy/net"  # a comment\n\n'
        + path.read_text()
        + '\n[pins."toy/z"]\n'
        + table("x/y").split("\n", 1)[1]
        + "# end\n"
    )
    path.write_text(text)
    lockfile.write(path, "toy/net", Weights(repo="acme/net", revision="d" * 40, sha256=SHA, license="mit"))
    after = path.read_text()
    assert after.startswith('# mine\n[aliases]\nmine = "toy/net"  # a comment\n')
    assert after.count('[pins."toy/net"]') == 1
    assert {name: pin.revision for name, pin in read_files([path]).pins.items()} == {"toy/net": "d" * 40, "toy/z": COMMIT}


@pytest.mark.parametrize("text", ['pins = { "toy/net" = { repo = "acme/net" } }\n', "[[["])
def test_a_file_that_cannot_be_edited_line_by_line_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "registry.toml"
    path.write_text(text)
    with pytest.raises(RegistryFileError):
        lockfile.write(path, "toy/net", PIN)
    assert path.read_text() == text


@pytest.mark.parametrize("weights", [None, Weights(package="zoo.builtin"), Weights(file="x.safetensors")])
def test_what_is_not_on_the_hub_cannot_be_pinned(weights: Weights | None) -> None:
    with pytest.raises(WeightsError, match="no commit to pin"):
        lockfile.resolve(weights, "toy/net")


def zoo_in(tmp_path: Path, hub: FakeHub, code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = fake_dist(tmp_path / "site", "zoo-toys", PLUGIN)
    environment |= {"HF_ENDPOINT": hub.url, "XDG_CONFIG_HOME": str(tmp_path / "config")}
    return in_child(code, path, *arguments, cache=tmp_path / "hub", **environment)


def weights_of(value: float) -> bytes:
    state = ToyNet().state_dict()
    return safetensors.torch.save(state | {"conv1.weight": torch.full_like(state["conv1.weight"], value)})


def test_lock_pins_what_the_hub_has_now_and_a_branch_that_moves_changes_nothing(tmp_path: Path, hub: FakeHub) -> None:
    content = weights_of(1.0)
    commit = hub.push("acme/net", {"model.safetensors": content}, card={"license": "Apache-2.0"})
    done = zoo_in(tmp_path, hub, RUN, "lock", "toy/net")
    assert done.returncode == 0, done.stderr
    assert not [asked for asked in hub.asked if asked.startswith("GET") and "resolve" in asked], "locking downloads no weights"
    (pin,) = tomllib.loads((tmp_path / "config" / "zoo" / "registry.toml").read_text())["pins"].values()
    assert pin == {
        "repo": "acme/net",
        "revision": commit,
        "file": "model.safetensors",
        "sha256": hashlib.sha256(content).hexdigest(),
        "license": "apache-2.0",
        "size": len(content),
    }
    moved = hub.push("acme/net", {"model.safetensors": weights_of(2.0)})
    ones = float(torch.ones_like(ToyNet().conv1.weight).sum())
    assert json.loads(zoo_in(tmp_path, hub, LOAD, "toy/net").stdout) == pytest.approx(ones)
    assert zoo_in(tmp_path, hub, RUN, "lock", "toy/net").returncode == 0, "locking again takes what the Hub has by then"
    assert moved in (tmp_path / "config" / "zoo" / "registry.toml").read_text()
    assert json.loads(zoo_in(tmp_path, hub, LOAD, "toy/net").stdout) == pytest.approx(2 * ones)


def test_w4_a_stale_digest_in_the_lock_is_refused(tmp_path: Path, hub: FakeHub) -> None:
    hub.push("acme/net", {"model.safetensors": weights_of(1.0)})
    assert zoo_in(tmp_path, hub, RUN, "lock", "toy/net").returncode == 0
    path = tmp_path / "config" / "zoo" / "registry.toml"
    text = path.read_text()
    sha256 = tomllib.loads(text)["pins"]["toy/net"]["sha256"]
    path.write_text(text.replace(sha256, "0" * 64))
    assert "pinned is 0000" in json.loads(zoo_in(tmp_path, hub, LOAD, "toy/net").stdout)


def test_lock_pins_sharded_models_and_writes_nothing_where_one_name_fails(tmp_path: Path, hub: FakeHub) -> None:
    state = ToyNet().state_dict()
    halves = {"model-1.safetensors": dict(list(state.items())[:4]), "model-2.safetensors": dict(list(state.items())[4:])}
    index = {"weight_map": {name: part for part, tensors in halves.items() for name in tensors}}
    files = {part: safetensors.torch.save(tensors) for part, tensors in halves.items()}
    hub.push("acme/shards", files | {"model.safetensors.index.json": json.dumps(index).encode()})
    out = tmp_path / "project.toml"
    failed = zoo_in(tmp_path, hub, RUN, "lock", "toy/shards", "toy/plain", "--out", str(out))
    assert (failed.returncode, out.exists()) == (1, False)
    assert "toy/plain declares no pretrained weights" in failed.stderr
    done = zoo_in(tmp_path, hub, RUN, "lock", "toy/shards", "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["toy/shards"]["file"] == "model.safetensors.index.json"
    loaded = zoo_in(tmp_path, hub, "import os; os.environ['ZOO_REGISTRY'] = __import__('sys').argv[3]\n" + LOAD, "toy/shards", str(out))
    assert json.loads(loaded.stdout) == pytest.approx(float(state["conv1.weight"].sum())), loaded.stderr


def pickled(value: float, **options: bool) -> bytes:
    state = ToyNet().state_dict()
    torch.save(state | {"conv1.weight": torch.full_like(state["conv1.weight"], value)}, stream := io.BytesIO(), **options)
    return stream.getvalue()


def sharded(value: float) -> dict[str, bytes]:
    state = torch.load(io.BytesIO(pickled(value)), weights_only=True)
    names = list(state)
    files, table = {}, {}
    for number, part in enumerate((names[:4], names[4:]), 1):
        name = f"pytorch_model-{number:05d}-of-00002.bin"
        torch.save({key: state[key] for key in part}, stream := io.BytesIO())
        files[name] = stream.getvalue()
        table |= dict.fromkeys(part, name)
    return files | {"pytorch_model.bin.index.json": json.dumps({"weight_map": table}).encode()}


FORMS = {
    "pytorch_model.bin": lambda: {"pytorch_model.bin": pickled(1.0)},
    "before torch 1.6": lambda: {"pytorch_model.bin": pickled(1.0, _use_new_zipfile_serialization=False)},
    "pytorch_model.bin.index.json": lambda: sharded(1.0),
}


@pytest.mark.parametrize("form", [pytest.param(form, marks=[pytest.mark.sweep] * (form == "before torch 1.6")) for form in FORMS])
def test_what_the_hub_has_only_as_pickles_is_loaded_in_one_line_and_locked_with_what_is_made_of_it(
    form: str, tmp_path: Path, hub: FakeHub
) -> None:
    hub.push("acme/net", FORMS[form](), card={"license": "mit"})
    ones = float(torch.ones_like(ToyNet().conv1.weight).sum())
    assert json.loads(zoo_in(tmp_path, hub, LOAD, "toy/net").stdout) == pytest.approx(ones)
    done = zoo_in(tmp_path, hub, RUN, "lock", "toy/net", "--json")
    assert done.returncode == 0, done.stderr
    pin = json.loads(done.stdout)["toy/net"]
    assert pin["file"] == (form if form.startswith("pytorch") else "pytorch_model.bin")
    assert len(pin["sha256"]) == len(pin["converted_sha256"]) == 64
    assert json.loads(zoo_in(tmp_path, hub, LOAD, "toy/net").stdout) == pytest.approx(ones)
    asked = len(hub.asked)
    assert zoo_in(tmp_path, hub, RUN, "download", "toy/net").returncode == 0
    assert len(hub.asked) == asked, "a pinned commit that is in the cache needs no network"
    path = tmp_path / "config" / "zoo" / "registry.toml"
    path.write_text(path.read_text().replace(pin["converted_sha256"], "0" * 64))
    assert "pinned is 0000" in json.loads(zoo_in(tmp_path, hub, LOAD, "toy/net").stdout)


def test_a_repository_without_weights_of_any_form_names_what_was_looked_for(tmp_path: Path, hub: FakeHub) -> None:
    hub.push("acme/net", {"tf_model.h5": b"x"})
    told = json.loads(zoo_in(tmp_path, hub, LOAD, "toy/net").stdout)
    assert "acme/net@main/model.safetensors" in told
    assert "nor has it model.safetensors.index.json, pytorch_model.bin, pytorch_model.bin.index.json" in told


def test_weights_of_a_url_are_locked_downloaded_shown_and_pruned(tmp_path: Path, hub: FakeHub) -> None:
    with FileServer().serving() as server:
        content = server.files["/net.pt"] = pickled(1.0)
        path = tmp_path / "project.toml"
        path.write_text(f'[backbones."local/mine"]\nbase = "toy/net"\nweights = {{ url = "{server.url}/net.pt", license = "mit" }}\n')
        there = "import os; os.environ['ZOO_REGISTRY'] = __import__('sys').argv.pop(2)\n"
        done = zoo_in(tmp_path, hub, there + RUN, str(path), "lock", "local/mine", "--out", str(path), "--json")
        assert done.returncode == 0, done.stderr
        pin = json.loads(done.stdout)["local/mine"]
        assert (pin["url"], pin["size"]) == (f"{server.url}/net.pt", len(server.files["/net.pt"]))
        assert pin["sha256"] == hashlib.sha256(server.files["/net.pt"]).hexdigest()
        assert tomllib.loads(path.read_text())["pins"]["local/mine"]["converted_sha256"] == pin["converted_sha256"]
        shown = json.loads(zoo_in(tmp_path, hub, RUN, "cache", "--json").stdout)
        assert [(entry["kind"], entry["name"]) for entry in shown] == [("converted", "net.pt")]
        assert "1 entry" in zoo_in(tmp_path, hub, RUN, "cache", "--prune", "0").stdout
        assert zoo_in(tmp_path, hub, RUN, "cache", "--json").stdout.strip() == "[]"
        assert f"the cache is empty: {tmp_path}" in zoo_in(tmp_path, hub, RUN, "cache").stdout
        server.files["/net.pt"] = pickled(2.0)
        failed = zoo_in(tmp_path, hub, there + RUN, str(path), "download", "local/mine")
        assert failed.returncode == 1
        assert "declared is" in failed.stderr
        server.files["/net.pt"] = content
        done = zoo_in(tmp_path, hub, there + RUN, str(path), "download", "local/mine")
        assert done.returncode == 0
        assert f"local/mine: licence mit, from {server.url}/net.pt" in done.stdout
        assert "--prune is -1" in zoo_in(tmp_path, hub, RUN, "cache", "--prune", "-1").stderr


def test_without_network_a_download_names_what_to_copy_where_for_each_name_and_that_works(tmp_path: Path, hub: FakeHub) -> None:
    hub.push("acme/net", {"model.safetensors": weights_of(1.0)})
    with FileServer().serving() as server:
        content = server.files["/net.pt"] = pickled(1.0)
        files = tmp_path / "project.toml"
        files.write_text(f'[backbones."local/mine"]\nbase = "toy/net"\nweights = {{ url = "{server.url}/net.pt", license = "mit" }}\n')
        words = ("--registry", str(files), "download", "toy/net", "local/mine")
        online, offline = tmp_path / "online", tmp_path / "offline"
        assert zoo_in(online, hub, RUN, *words).returncode == 0
        failed = zoo_in(offline, hub, RUN, *words, HF_HUB_OFFLINE="1")
        assert failed.returncode == 1
        assert "2 of 2 names cannot be fetched" in failed.stderr
        of_hub, of_url = (line for line in failed.stderr.splitlines() if line.startswith("  - "))
        assert "run zoo download toy/net, and copy the folder models--acme--net of its cache of the Hub" in of_hub
        shutil.copytree(online / "hub" / "models--acme--net", re.findall("'(/[^']*)'", of_hub)[-1], symlinks=True)
        Path(re.findall("'(/[^']*)'", of_url)[-1]).write_bytes(content)
        done = zoo_in(offline, hub, RUN, *words, HF_HUB_OFFLINE="1")
        assert done.returncode == 0, done.stderr


def test_the_tokenizer_of_a_text_model_is_downloaded_with_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.cli.commands.files import download
    from zoo.cli.output.stdout import Output

    opened: list[str] = []
    monkeypatch.setattr("tests.toy_tokenizer.open_tokenizer", opened.append)
    safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "net.safetensors")
    inputs = dataclasses.replace(toy_text_spec().inputs, files="owner/words")
    spec = toy_text_spec().replace(weights=Weights(file=str(tmp_path / "net.safetensors")), inputs=inputs)

    class OfTexts:
        @zoo.hookimpl
        def zoo_backbones(self) -> list[BackboneSpec]:
            return [spec]

    use_registry(Registry(plugins=[OfTexts()], files=[]))
    try:
        download(argparse.Namespace(names=[spec.name], json=False), Output(sys.stdout))
    finally:
        use_registry()
    assert opened == ["owner/words"]
