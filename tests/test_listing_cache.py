"""A cached listing gives one backbone without reading the others, is rebuilt where it is damaged, and answers as the plugin does."""

from __future__ import annotations

import difflib
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.faults.fake_dist import fake_dist
from tests.warm_process import run_warm_ranks
from zoo.declare import BackboneSpec
from zoo.errors import AmbiguousNameError, OptionError, UnknownBackboneError, nearest
from zoo.plugins.policy import Policy
from zoo.registry.registry import Registry, list_backbones, use_registry

NUMBER = 600
MANY = """
    import zoo

    @zoo.hookimpl
    def zoo_backbones():
        for number in range({number}):
            yield zoo.BackboneSpec(
                name=f"many/net{{number}}", build="zoo_many:build", layers={{"stem": "conv", "block": ["blocks.*", "norm"]}},
                inputs=zoo.Image(size=(8 + number % 3, 8)), features=zoo.Features(dim=4), options={{"depths": (number, 2)}},
                weights=zoo.Weights(repo=f"many/net{{number}}", license="mit") if number % 2 else None, parameters=10_000 + number,
                metrics={{"imagenet-top1": 70 + number / 1000}},
            )

    @zoo.hookimpl
    def zoo_heads():
        return [zoo.HeadSpec(name="many-head", build="zoo_many:head")]
"""
Open = Callable[..., Registry]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Open a registry of zoo and of one more distribution, which is not imported where its listing is cached."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    def build(files: list[Path] | None = None) -> Registry:
        sys.modules.pop("zoo_many", None)
        return Registry(files=files or [], policy=Policy.of(allow=["many"]))

    yield build
    use_registry()
    sys.modules.pop("zoo_many", None)


@contextmanager
def specs_made() -> Iterator[Counter[str]]:
    """Count the specs of ``many/…`` that are made, by whatever way."""
    made: Counter[str] = Counter()

    def look(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code is BackboneSpec.__post_init__.__code__ and frame.f_locals["self"].name.startswith("many/"):
            made[frame.f_locals["self"].name] += 1

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        yield made
    finally:
        sys.setprofile(before)


def listing(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "cache").glob("plugins/zoo-many*")
    return path


def content(registry: Registry) -> list[Any]:
    return [(entry.spec, entry.origin) for entry in registry.search()] + [registry.heads(), registry.names(), registry.faults]


@pytest.fixture
def many(tmp_path: Path, opened: Open) -> Open:
    fake_dist(tmp_path / "site", "zoo-many", MANY.format(number=NUMBER))
    with specs_made() as made:
        opened()
    assert len(made) == NUMBER, "the first registry imports the plugin"
    return opened


LAST_TEN = {f"many/net{number}" for number in range(590, 600)}
ASKED: dict[str, tuple[Callable[[Registry], Any], set[str]]] = {
    "an id": (lambda registry: registry.resolve("many/net77"), {"many/net77"}),
    "an id, twice": (lambda registry: [registry.resolve("many/net77"), registry.resolve("many/net77")], {"many/net77"}),
    "a short name": (lambda registry: registry.resolve("net599"), {"many/net599"}),
    "an id with its distribution": (lambda registry: registry.resolve("zoo-many:many/net5"), {"many/net5"}),
    "a backbone of another plugin": (lambda registry: registry.resolve("zoo/glyphnet"), set()),
    "a glob": (lambda registry: registry.search("net59?"), LAST_TEN),
    "a glob with a filter": (lambda registry: registry.search("NET59*", pretrained=True), {"many/net59", *LAST_TEN}),
    "another source": (lambda registry: registry.search(source="zoo"), set()),
    "names only": (lambda registry: (use_registry(registry), list_backbones("net1*"), registry.names()), set()),
    "counts": (lambda registry: [registry.given_by(plugin) for plugin in registry.plugins], set()),
    "faults and heads": (lambda registry: (registry.faults, registry.heads()), set()),
}  # fmt: skip


@pytest.mark.parametrize("what", ASKED)
def test_what_is_asked_for_is_all_that_is_read_of_a_listing(what: str, many: Open) -> None:
    ask, needed = ASKED[what]
    with specs_made() as made:
        ask(many())
    assert made == dict.fromkeys(needed, 1)
    assert "zoo_many" not in sys.modules


def test_an_alias_and_a_derived_backbone_read_one_entry_and_a_miss_none(many: Open, tmp_path: Path) -> None:
    path = tmp_path / "registry.toml"
    path.write_text('[aliases]\nmine = "many/net7"\n[backbones."local/net"]\nbase = "many/net8"\n')
    with specs_made() as made:
        assert many([path]).resolve("mine").spec.options == {"depths": (7, 2)}
    assert made == {"many/net7": 1}
    with specs_made() as made:
        assert many([path]).resolve("local/net").spec.base == "many/net8"
    assert made == {"many/net8": 1}
    with specs_made() as made, pytest.raises(UnknownBackboneError, match="did you mean 'many/net77'"):
        many().resolve("many/net77_")
    assert not made


def test_a_registry_of_a_cached_listing_answers_as_one_of_the_plugin(many: Open, tmp_path: Path) -> None:
    cached = many()
    assert "zoo_many" not in sys.modules
    answers = []
    for registry in (cached, None):
        if registry is None:
            listing(tmp_path).unlink()
            registry = many()
            assert "zoo_many" in sys.modules
        found = [content(registry), [registry.given_by(plugin) for plugin in registry.plugins]]
        for sort in ("params", "accuracy", "size", "gmacs"):
            found.append([entry.spec.name for entry in registry.search("net*", license="permissive", max_params=10_400, sort=sort)])
        with pytest.raises(OptionError) as caught:
            registry.search(modality="imgae", license="mitt", source="mani")
        answers.append([*found, str(caught.value)])
    assert answers[0] == answers[1]
    assert answers[0][2], "the filters leave some"


def test_a_name_that_a_plugin_lists_twice_stays_a_clash(opened: Open, tmp_path: Path) -> None:
    names = ["many/a", "many/twin", "many/b", "many/twin"]
    fake_dist(tmp_path / "site", "zoo-many", names=names)
    for registry in (opened(), opened()):
        assert registry.faults == ["'many/twin' is given by zoo-many 1.0 and by zoo-many 1.0"]
        assert [registry.given_by(plugin) for plugin in registry.plugins if plugin.name == "many"] == [(4, 0)]
        assert [entry.spec.name for entry in registry.search("many/*")] == sorted(names)
        with pytest.raises(AmbiguousNameError, match="many/twin"):
            registry.resolve("many/twin")
    assert "zoo_many" not in sys.modules, "the second was of the cache"


def test_a_damaged_listing_is_rebuilt_silently(opened: Open, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fake_dist(tmp_path / "site", "zoo-many", MANY.format(number=4))
    expected = content(opened())
    path = listing(tmp_path)
    whole = path.read_bytes()
    dice = random.Random(0)
    cases = [b"", b"null", b"\n", b"00000000\n", whole + b"\n", whole + whole, whole[9:], json.dumps({"key": []}).encode()]
    for _ in range(60):
        place = dice.randrange(len(whole))
        cases += [whole[:place], whole[:place] + bytes([whole[place] ^ 1 << dice.randrange(8)]) + whole[place + 1 :]]
        end = place + dice.randrange(40)
        cases += [whole[:place] + dice.randbytes(end - place) + whole[end:]]
    for case in cases:
        path.write_bytes(case)
        assert content(opened()) == expected
        assert ("zoo_many" in sys.modules) == (case != whole)
        assert path.read_bytes() == whole
    assert capfd.readouterr() == ("", "")


def test_a_listing_of_the_format_before_is_rebuilt(opened: Open, tmp_path: Path) -> None:
    fake_dist(tmp_path / "site", "zoo-many", MANY.format(number=1))
    expected = content(opened())
    path = listing(tmp_path)
    head = json.loads(path.read_text().split("\n")[1])
    path.write_text(json.dumps({"key": [1, *head["key"][1:]], "hooks": head["hooks"], "fields": head["fields"], "backbones": []}))
    assert content(opened()) == expected
    assert json.loads(path.read_text().split("\n")[1]) == head


def test_processes_that_list_at_once_leave_a_whole_listing(opened: Open, tmp_path: Path) -> None:
    fake_dist(tmp_path / "site", "zoo-many", MANY.format(number=500))
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path / 'site')!r}, {str(Path(__file__).parents[1])!r}]\n"
        "from zoo.registry.registry import Registry\n"
        "print(sum(name.startswith('many/') for name in Registry(files=[]).names()))"
    )
    done = run_warm_ranks(code, [], 3, env=os.environ, cwd=tmp_path)
    assert [process.stdout.strip() for process in done] == ["500"] * 3
    path = listing(tmp_path)
    assert [one.name for one in path.parent.iterdir() if "many" in one.name] == [path.name]
    assert len(opened().search("many/*")) == 500
    assert "zoo_many" not in sys.modules, "what they left is used"


def test_the_nearest_names_are_those_of_difflib() -> None:
    dice, found = random.Random(0), 0
    for letters in ("ab", "abc/", "netv0123456_./-", "éaß"):
        for _ in range(300):
            name, *pool = ["".join(dice.choices(letters, k=dice.randint(1, 12))) for _ in range(40)]
            limit = dice.randint(1, 4)
            known = sorted({one.lower() for one in pool})
            best = difflib.get_close_matches(name.lower(), known, n=limit, cutoff=0.6)
            assert nearest(name, known, limit) == best, (name, known)
            found += len(best)
    assert found > 500
    assert nearest("x", []) == nearest("", ["a"]) == []
