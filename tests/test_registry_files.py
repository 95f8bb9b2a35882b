"""registry.toml: merged in order, derived lazily, all faults at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import zoo
from tests.toy import ToyPlugin, toy_spec
from zoo.declare import BackboneSpec, Features, Text, Weights
from zoo.errors import RegistryFileError, UnknownBackboneError
from zoo.registry.registry import Registry
from zoo.registry.registry_files import default_files, read_files


class Base:
    @zoo.hookimpl
    def zoo_backbones(self) -> list[BackboneSpec]:
        weights = Weights(repo="toy/base", license="apache-2.0")
        options = {"width": 8, "depth": 2}
        return [
            toy_spec("toy/base", weights=weights, options=options, metrics={"imagenet-top1": 70.0}, parameters=3),
            toy_spec("toy/text", inputs=Text(max_length=64), features=Features(dim=8, layout="BD")),
        ]


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str, name: str = "registry.toml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_a_derived_backbone_keeps_what_it_does_not_change(write: Any) -> None:
    path = write(
        """
        [backbones."local/mine"]
        base = "toy/base"
        weights = { file = "weights/model.safetensors", license = "mit" }
        options = { width = 16 }
        inputs = { size = 32, mean = [0.1, 0.2, 0.3] }
        description = "Mine."
        """
    )
    entry = Registry(plugins=[Base()], files=[path]).resolve("mine")
    spec = entry.spec
    assert (spec.name, spec.base, spec.source, spec.description) == ("local/mine", "toy/base", "local", "Mine.")
    assert spec.options == {"width": 16, "depth": 2}
    assert (spec.inputs.size, spec.inputs.mean, spec.inputs.std) == ((32, 32), (0.1, 0.2, 0.3), (0.5, 0.5, 0.5))  # type: ignore[union-attr]
    assert spec.weights == Weights(file=str(path.parent / "weights/model.safetensors"), license="mit")
    assert spec.metrics == {}, "published figures belong to the weights of the base"
    assert (entry.plugin and entry.plugin.name, entry.file) == ("Base", path)


def test_options_alone_keep_the_weights_of_the_base(write: Any) -> None:
    path = write('[backbones."local/mine"]\nbase = "toy/base"\noptions = { width = 16 }')
    spec = Registry(plugins=[Base()], files=[path]).resolve("local/mine").spec
    assert spec.weights == Weights(repo="toy/base", license="apache-2.0")
    assert spec.metrics == {"imagenet-top1": 70.0}


def test_a_file_of_a_repository_is_not_taken_for_a_local_one(write: Any) -> None:
    weights = f'{{ repo = "me/mine", revision = "abc", file = "model.safetensors", sha256 = "{"0" * 64}", license = "mit" }}'
    path = write(f'[backbones."local/mine"]\nbase = "toy/base"\nweights = {weights}')
    found = Registry(plugins=[Base()], files=[path]).resolve("local/mine").spec.weights
    assert found == Weights(repo="me/mine", revision="abc", file="model.safetensors", sha256="0" * 64, license="mit")


def test_a_file_may_change_a_backbone_under_its_own_id_and_derive_from_derived_ones(write: Any) -> None:
    path = write(
        """
        [backbones."toy/base"]
        base = "toy/base"
        options = { width = 16 }
        [backbones."local/second"]
        base = "local/first"
        options = { depth = 5 }
        [backbones."local/first"]
        base = "base"
        """
    )
    registry = Registry(plugins=[Base()], files=[path])
    assert registry.resolve("toy/base").spec.options == {"width": 16, "depth": 2}
    assert registry.resolve("local/second").spec.options == {"width": 16, "depth": 5}
    assert registry.pending == []


def test_a_base_of_an_open_family_is_asked_for_only_when_the_backbone_is_used(write: Any) -> None:
    asked = []

    class Open:
        @zoo.hookimpl
        def zoo_find_backbone(self, name: str) -> Any:
            asked.append(name)
            return toy_spec(name)

    path = write('[backbones."local/mine"]\nbase = "open/any"\n[aliases]\nmy = "local/mine"')
    registry = Registry(plugins=[Open(), ToyPlugin()], files=[path])
    assert registry.names() == ["local/mine", "toy/net"]
    assert [entry.spec.name for entry in registry.search()] == ["toy/net"]
    assert asked == []
    assert registry.pending == ["local/mine"]
    assert registry.resolve("my").spec.base == "open/any"
    assert [entry.spec.name for entry in registry.search("local/mine")] == ["local/mine"]
    assert asked == ["open/any"] * 2


def test_a_derived_backbone_whose_base_is_absent_does_not_take_listing_down(write: Any) -> None:
    path = write(
        """
        [sources]
        far = { distribution = "zoo-far", extra = "far" }
        [backbones."local/orphan"]
        base = "far/net"
        """
    )
    registry = Registry(plugins=[ToyPlugin()], files=[path])
    assert [entry.spec.name for entry in registry.search()] == ["toy/net"]
    with pytest.raises(UnknownBackboneError) as caught:
        registry.resolve("orphan")
    assert "local/orphan, which is derived from far/net, which comes with the plugin zoo-far" in str(caught.value)
    assert "pip install ./plugins/zoo-far" in str(caught.value)


def test_inputs_that_do_not_fit_the_base_are_told_when_it_is_used(write: Any) -> None:
    path = write('[backbones."local/mine"]\nbase = "toy/text"\ninputs = { size = 32 }')
    registry = Registry(plugins=[Base()], files=[path])
    assert "toy/text" in [entry.spec.name for entry in registry.search()]
    with pytest.raises(RegistryFileError, match=r"(?s)registry\.toml.*local/mine.*Text has no field 'size'"):
        registry.resolve("local/mine")


@pytest.mark.parametrize("text", ['[aliases]\na = "b"\nb = "a"', '[backbones."l/a"]\nbase = "l/b"\n[backbones."l/b"]\nbase = "l/a"'])
def test_a_circle_is_told(text: str, write: Any) -> None:
    registry = Registry(plugins=[ToyPlugin()], files=[write(text)])
    with pytest.raises(RegistryFileError, match="circle"):
        registry.resolve("a")


def test_all_faults_of_all_files_are_told_at_once(write: Any) -> None:
    one = write(
        """
        version = 1
        [alias]
        a = "b"
        [aliases]
        number = 3
        [backbones.noslash]
        base = "toy/base"
        [backbones."local/a"]
        bsae = "toy/base"
        [backbones."local/b"]
        base = "toy/base"
        inputs = { maen = [0.5] }
        weights = { fle = "x", sha256 = "12" }
        options = 3
        """,
        "one.toml",
    )
    two = write("[sources]\nhf = { distribtion = 'zoo-hf' }\n", "two.toml")
    three = write("[aliases\n", "three.toml")
    with pytest.raises(RegistryFileError) as caught:
        read_files([one, two, three])
    told = str(caught.value)
    facts = [
        "has no key 'version'; it can have: aliases, backbones, pins, sources",
        "'alias' (did you mean 'aliases'?)",
        "alias 'number' is 3",
        "backbone 'noslash'",
        "'bsae' (did you mean 'base'?)",
        "backbone 'local/a': base is missing",
        "'maen' (did you mean 'mean'?)",
        "weights: give file",
        "'options' is 3; it must be a table",
        "'distribtion' (did you mean 'distribution'?)",
        "three.toml: cannot be read",
    ]
    assert [fact for fact in facts if fact not in told] == []
    assert all(str(path) in told for path in (one, two, three))


def test_files_are_merged_in_order_and_the_later_wins(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    user = write("[aliases]\nresnet50 = 'u/1'\na = 'u/1'\nb = 'u/1'\nc = 'u/1'\nd = 'u/1'", "config/zoo/registry.toml")
    project = write("[aliases]\nb = 'p/1'\nc = 'p/1'\nd = 'p/1'")
    first, second, last = (write(f"[aliases]\n{keys}", f"{name}.toml") for name, keys in FILES.items())
    monkeypatch.setenv("ZOO_REGISTRY", os.pathsep.join(map(str, [first, second])))
    files = default_files([last])
    assert [path.resolve() for path in files[1:]] == [user, project, first, second, last]
    aliases = read_files(files).aliases
    assert {key: aliases[key] for key in ("resnet50", "a", "b", "c", "d")} == dict(
        zip(("resnet50", "a", "b", "c", "d"), ("u/1", "u/1", "p/1", "e/2", "x/1"), strict=True)
    )
    assert aliases["resnet18"].startswith("timm/"), "the shipped file comes first"


FILES = {"first": "c = 'e/1'\nd = 'e/1'", "second": "c = 'e/2'", "last": "d = 'x/1'"}


def test_a_file_that_is_named_and_absent_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_REGISTRY", str(tmp_path / "one.toml"))
    with pytest.raises(RegistryFileError, match=r"(?s)ZOO_REGISTRY names .*one\.toml.*--registry names .*two\.toml"):
        default_files([tmp_path / "two.toml"])


def test_the_registry_of_the_real_weights_loads(shared: Path) -> None:
    data = read_files([shared / "data" / "registry.toml"])
    assert data.aliases["mobilenet"] == "local/mobilenetv2_100"
    derived = data.backbones["local/mobilenetv2_100"]
    assert derived.options == {"pad_type": "same", "bn_eps": 1e-3}
    assert derived.weights is not None
    assert Path(derived.weights.file).is_file()


def test_every_shipped_alias_has_a_source_that_says_who_provides_it() -> None:
    data = read_files(default_files()[:1])
    assert {"resnet18", "resnet50", "vit_base", "convnext_tiny", "swin_tiny", "dinov2_small", "bert-base-uncased"} <= set(data.aliases)
    assert {target.partition("/")[0] for target in data.aliases.values()} <= set(data.sources)


def test_every_shipped_alias_is_listed_by_the_plugin_that_it_names() -> None:
    registry = Registry(files=default_files()[:1])
    loaded = {plugin.distribution for plugin in registry.plugins if plugin.status == "ok"}
    if "zoo-timm" not in loaded:
        pytest.skip("zoo-timm is not installed")
    listed = set(registry.names())
    assert [target for target in registry.aliases.values() if target.startswith("timm/") and target not in listed] == []


def test_an_alias_that_would_hide_a_backbone_is_an_error(write: Any) -> None:
    registry = Registry(plugins=[ToyPlugin()], files=[write('[aliases]\n"toy/net" = "toy/other"\n')])
    with pytest.raises(RegistryFileError, match=r"alias 'toy/net' of a registry file would hide"):
        registry.resolve("toy/net")


def test_a_line_of_very_many_dots_and_a_pipe_are_refused_at_once(write: Any, tmp_path: Path) -> None:
    with pytest.raises(RegistryFileError, match="more than 300 dots"):
        Registry(plugins=[], files=[write("a." * 40_000 + "b = 1\n")])
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RegistryFileError, match="no regular file"):
        Registry(plugins=[], files=[tmp_path / "pipe"])
