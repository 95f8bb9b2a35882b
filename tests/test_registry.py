"""Names become specs: aliases, ids, short names, search, and what a miss says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import zoo
from tests.faults.fake_dist import fake_dist, run_python
from tests.toy import ToyPlugin, toy_spec
from zoo.declare import BackboneSpec, Features, HeadSpec, Image, Text, Volume, Weights
from zoo.errors import AmbiguousNameError, OptionError, RegistryFileError, UnknownBackboneError
from zoo.plugins.loader import Plugin
from zoo.registry.registry import Registry, default_registry, use_registry
from zoo.registry.registry_files import default_files


def spec(name: str, *, license: str = "", **changes: Any) -> BackboneSpec:
    weights = Weights(repo="a/b", license=license) if license else None
    fields: dict[str, Any] = {"inputs": Image(size=224), "parameters": 1_000_000, "weights": weights}
    return toy_spec(name, **(fields | changes))


class Many:
    specs = (
        spec("a/resnet50", parameters=25_000_000, license="apache-2.0"),
        spec("a/resnet18", parameters=11_000_000, license="mit", inputs=Image(size=160)),
        spec("a/resnet18.large", parameters=11_000_000, license="cc-by-nc-4.0", inputs=Image(size=(160, 320))),
        spec("a/unknown_size", parameters=0),
        spec("b/bert", inputs=Text(), features=Features(dim=8, layout="BD"), license="apache-2.0"),
        spec("b/volume", inputs=Volume(), features=Features(dim=8, layout="BCDHW")),
        spec("b/unknown_size", parameters=0),
        spec("b/deep/name"),
    )

    @zoo.hookimpl
    def zoo_backbones(self) -> Iterator[BackboneSpec]:
        yield from self.specs

    @zoo.hookimpl
    def zoo_heads(self) -> list[HeadSpec]:
        return [HeadSpec(name="linear", build="tests.toy:toynet")]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    path = tmp_path / "registry.toml"
    path.write_text(
        """
        [sources]
        a = { distribution = "zoo-a" }
        absent = { distribution = "zoo-absent", extra = "absent" }
        private = { distribution = "zoo-private" }
        broken = { distribution = "zoo-broken" }
        hf = { distribution = "zoo-hf", extra = "hf" }
        [aliases]
        r50 = "a/resnet50"
        short = "resnet50"
        away = "absent/net"
        """
    )
    broken = Plugin(name="broken", distribution="zoo-broken", version="3.1", status="failed", cause="ImportError: no luck")
    return Registry(plugins=[Plugin(name="a", distribution="zoo-a", version="1.0", object=Many()), broken], files=[path])


def names(registry: Registry, pattern: str = "*", **filters: Any) -> list[str]:
    return [entry.spec.name for entry in registry.search(pattern, **filters)]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a/*", ["a/resnet18", "a/resnet18.large", "a/resnet50", "a/unknown_size"]),
        ("resnet*", ["a/resnet18", "a/resnet18.large", "a/resnet50"]),
        ("resnet[15]?", ["a/resnet18", "a/resnet50"]),
        ("resnet18", ["a/resnet18", "a/resnet18.large"]),
        ("NET5", ["a/resnet50"]),
        ("RES*50", ["a/resnet50"]),
        ("deep/*", ["b/deep/name"]),
        ("r50", ["a/resnet50"]),
    ],
)
def test_a_glob_matches_the_whole_id_or_the_part_after_the_source_and_a_word_any_part(
    registry: Registry, pattern: str, found: list[str]
) -> None:
    assert names(registry, pattern) == found


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"modality": "text"}, ["b/bert"]),
        ({"modality": "volume"}, ["b/volume"]),
        ({"max_params": 11e6, "source": "a"}, ["a/resnet18", "a/resnet18.large"]),
        ({"max_params": 1000}, []),
        ({"max_gmacs": 1e-9}, []),
        ({"source": "a", "sort": "params"}, ["a/resnet18", "a/resnet18.large", "a/resnet50", "a/unknown_size"]),
        ({"license": "permissive"}, ["a/resnet18", "a/resnet50", "b/bert"]),
        ({"license": "cc-by-nc-4.0"}, ["a/resnet18.large"]),
        ({"image_size": 160}, ["a/resnet18", "a/resnet18.large"]),
        ({"image_size": 161}, []),
        ({"source": "b", "pretrained": False}, ["b/deep/name", "b/unknown_size", "b/volume"]),
        ({"source": "b", "pretrained": True}, ["b/bert"]),
    ],
)
def test_filters_narrow_the_listing(registry: Registry, filters: dict[str, Any], found: list[str]) -> None:
    assert names(registry, **filters) == found


@pytest.mark.parametrize(
    ("filters", "facts"),
    [
        ({"modality": "imgae"}, ["'imgae'", "did you mean 'image'"]),
        ({"license": "apache2.0"}, ["did you mean 'apache-2.0'"]),
        ({"source": "absent"}, ["zoo-absent", "pip install ./plugins/zoo-absent"]),
        ({"source": "broken"}, ["zoo-broken 3.1", "no luck"]),
        ({"max_params": float("nan")}, ["max_params", "positive"]),
        ({"image_size": 0, "modality": "x"}, ["image_size", "modality"]),
    ],
)
def test_a_filter_value_that_no_backbone_has_is_an_error(registry: Registry, filters: dict[str, Any], facts: list[str]) -> None:
    with pytest.raises(OptionError) as caught:
        registry.search(**filters)
    assert all(fact in str(caught.value) for fact in facts), caught.value


def test_an_unknown_filter_is_an_error_with_the_nearest() -> None:
    with pytest.raises(OptionError, match=r"max_param'.*did you mean 'max_params'"):
        zoo.list_backbones(max_param=3)


@pytest.mark.parametrize("name", ["a/resnet50", "resnet50", "r50", "short", "zoo-a:a/resnet50"])
def test_one_backbone_answers_to_its_id_its_short_name_and_its_aliases(registry: Registry, name: str) -> None:
    entry = registry.resolve(name)
    assert entry.spec.name == "a/resnet50"
    assert entry.origin == "zoo-a 1.0"


def test_a_short_name_that_fits_two_ids_lists_both_with_their_distribution(registry: Registry) -> None:
    with pytest.raises(AmbiguousNameError) as caught:
        registry.resolve("unknown_size")
    assert "a/unknown_size (zoo-a 1.0)" in str(caught.value)
    assert "b/unknown_size (zoo-a 1.0)" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("resnet5O", ["'a/resnet50'"]),
        ("ResNet50", ["did you mean 'a/resnet50'"]),
        ("A/RESNET18", ["did you mean 'a/resnet18'"]),
        ("a.resnet18", ["did you mean 'a/resnet18'"]),
        ("A_resnet18", ["did you mean 'a/resnet18'"]),
        ("a/resnt50", ["did you mean 'a/resnet50'"]),
        ("absent/thing", ["zoo-absent", "not installed", "pip install ./plugins/zoo-absent"]),
        ("away", ["'away' is absent/net", "zoo-absent", "pip install ./plugins/zoo-absent"]),
        ("private/thing", ["zoo-private", "not installed"]),
        ("broken/thing", ["zoo-broken 3.1 failed to load", "no luck"]),
        ("zzzzzzzz", ["zoo list", "zoo-broken 3.1"]),
        ("resnext*", ["did you mean"]),
        ("aw*", ["away", "pip install ./plugins/zoo-absent"]),
        ("a.resnet50", ["did you mean 'a/resnet50'"]),
        ("a_resnet50", ["did you mean 'a/resnet50'"]),
        ("a:resnet50", ["did you mean 'a/resnet50'"]),
        ("unknown-size", ["did you mean 'a/unknown_size' or 'b/unknown_size'"]),
        ("resnet18.larg", ["did you mean 'a/resnet18.large'"]),
        ("deep-name", ["did you mean 'b/deep/name'"]),
        ("owner/a-model", ["type 'hf/owner/a-model'", "zoo-hf", "not installed"]),
        ("owner/a-model@main", ["type 'hf/owner/a-model@main'"]),
        ("https://huggingface.co/owner/a-model/", ["type 'hf/owner/a-model'"]),
        ("brokn/thing", ["zoo list shows", "zoo-broken 3.1"]),
        ("owner/a/b", ["zoo list"]),
        ("", ["no backbone ''"]),
        ("../../etc/passwd\0", ["no backbone"]),
    ],
)
def test_a_miss_names_what_is_nearest_or_who_would_have_it(registry: Registry, name: str, facts: list[str]) -> None:
    with pytest.raises(UnknownBackboneError) as caught:
        registry.search(name) if "*" in name else registry.resolve(name)
    assert all(fact in str(caught.value) for fact in facts), caught.value


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("resnet50.tv", "timm/resnet50.tv_in1k"),
        ("torchvision.resnet18", "torchvision/resnet18"),
        ("torchvision_resnet18", "torchvision/resnet18"),
        ("bert-base", "bert-base-cased"),
        ("google-bert_bert-base-cased", "hf/google-bert/bert-base-cased"),
    ],
)
def test_a_near_spelling_of_a_shipped_name_names_it_first(name: str, nearest: str) -> None:
    registry = Registry(files=default_files())
    if not registry.names() or nearest.partition("/")[0] not in {*registry.aliases, *(one.partition("/")[0] for one in registry.names())}:
        pytest.skip("its plugin is not installed")
    with pytest.raises(UnknownBackboneError, match=f"did you mean '{nearest}'"):
        registry.resolve(name)


def test_a_plugin_that_is_not_published_is_not_offered_for_installation(registry: Registry) -> None:
    with pytest.raises(UnknownBackboneError) as caught:
        registry.resolve("private/thing")
    assert "pip install" not in str(caught.value)


def test_heads_are_found_by_name_and_a_clash_is_an_error() -> None:
    registry = Registry(plugins=[Many()], files=[])
    assert registry.head("linear").build == "tests.toy:toynet"
    with pytest.raises(OptionError, match=r"no head 'liner'.*did you mean 'linear'"):
        registry.head("liner")
    twice = Registry(plugins=[Plugin(name=n, distribution=n, version="1", object=Many()) for n in ("zoo-a", "zoo-b")], files=[])
    with pytest.raises(AmbiguousNameError, match="zoo-a 1 and by zoo-b 1"):
        twice.head("linear")
    assert any("head 'linear'" in fault for fault in twice.faults)


def test_a_clash_is_listed_from_both_and_takes_nothing_down() -> None:
    plugins = [Plugin(name=n, distribution=n, version="1", object=ToyPlugin()) for n in ("zoo-b", "zoo-a")]
    registry = Registry(plugins=plugins, files=[])
    assert [(entry.spec.name, entry.origin) for entry in registry.search()] == [("toy/net", "zoo-a 1"), ("toy/net", "zoo-b 1")]
    assert registry.names() == ["toy/net"]
    for name in ("toy/net", "net"):
        with pytest.raises(AmbiguousNameError, match="zoo-a 1 and by zoo-b 1"):
            registry.resolve(name)


def test_the_process_wide_registry_can_be_replaced_and_is_built_when_needed(registry: Registry, tmp_path: Path) -> None:
    try:
        use_registry(registry)
        assert default_registry() is registry
        assert zoo.list_backbones("resnet*") == ["a/resnet18", "a/resnet18.large", "a/resnet50"]
        use_registry(files=[tmp_path / "absent.toml"])
        with pytest.raises(RegistryFileError, match=r"--registry names .*absent\.toml"):
            default_registry()
    finally:
        use_registry()
    assert default_registry() is not registry


@pytest.mark.parametrize("number", [3_300, pytest.param(100_000, marks=pytest.mark.sweep)])
def test_a_large_listing_calls_each_hook_once_and_imports_no_torch(number: int, tmp_path: Path) -> None:
    source = f"""
        import zoo

        calls = []

        @zoo.hookimpl
        def zoo_backbones():
            calls.append(1)
            inputs, features = zoo.Image(), zoo.Features(dim=8)
            return [
                zoo.BackboneSpec(name=f"big/net{{i}}", build="m:f", layers={{"a": "b"}}, inputs=inputs, features=features, parameters=i + 1)
                for i in range({number})
            ]
    """
    fake_dist(tmp_path, "zoo-big", source)
    code = """
        import json, sys
        import zoo, zoo_big
        found = zoo.list_backbones("big/*9", max_params=1000), zoo.list_backbones("net1?", source="big"), len(zoo.list_backbones("big/*"))
        heavy = {"torch", "numpy", "pandas", "pydantic", "rich", "timm"} & set(sys.modules)
        print(json.dumps([len(found[0]), len(found[1]), found[2], len(zoo_big.calls), sorted(heavy)]))
    """
    done = run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [100, 10, number, 1, []]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("chest", ["a/one", "b/two"]),
        ("x-ray", ["a/one", "b/two"]),
        ("XRay", ["a/one", "b/two"]),
        ("chest nih", ["a/one"]),
        ("nih one", ["a/one"]),
        ("resnet-18", ["b/resnet_18"]),
        ("zoo-b", ["b/four", "b/resnet_18", "b/two"]),
        ("volume", ["b/four"]),
        ("imagenet", ["b/resnet_18"]),
        ("a/b", ["b/resnet_18"]),
        ("family", ["b/four"]),
    ],
)
def test_words_are_looked_for_in_all_that_a_declaration_says(words: str, found: list[str]) -> None:
    volume = {"inputs": Volume(), "features": Features(dim=8, layout="BCDHW")}
    specs = (
        spec("a/one", description="DenseNet for chest X-rays, trained on NIH ChestX-ray14."),
        spec("b/two", description="Made for x_ray images of the Chest."),
        spec("b/resnet_18", options={"width": 2}, metrics={"imagenet-top1": 70.0}, license="mit"),
        spec("b/four", base="local/family", **volume),
    )

    class Some:
        def __init__(self, source: str) -> None:
            self.source = source

        @zoo.hookimpl
        def zoo_backbones(self) -> list[BackboneSpec]:
            return [one for one in specs if one.source == self.source]

    plugins = [Plugin(name=name, distribution=f"zoo-{name}", version="1", object=Some(name)) for name in "ab"]
    assert names(Registry(plugins=plugins, files=[]), words) == found


def test_a_glob_finds_a_repository_by_its_last_part() -> None:
    from zoo.registry.search import name_matcher

    match = name_matcher("bert*")
    assert match("hf/google-bert/bert-base-uncased")
    assert not match("hf/distilbert/distilbert-base-uncased")
