"""The reader of whole pickled modules: the tensors of torch's own, and nothing of a file runs, whatever is in it."""

from __future__ import annotations

import argparse
import builtins
import contextlib
import datetime
import importlib
import io
import itertools
import os
import pathlib
import pickle
import random
import runpy
import shutil
import subprocess
import sys
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.faults.payloads import Calls, Module, saved
from zoo.errors import WeightsError
from zoo.weights.pickled.convert import convert, read_checkpoint
from zoo.weights.pickled.inert_unpickler import read_records
from zoo.weights.pickled.pickle_scan import check_pickles
from zoo.weights.pickled.records import Record, Stored, module_tensors


class Odd(nn.Module):
    """A module with all that a pickled one may hold."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.tied = self.net[0]
        self.turned = nn.Parameter(torch.randn(4, 6).t())
        self.register_buffer("counts", torch.arange(3))
        self.register_buffer("passing", torch.ones(3), persistent=False)
        self.register_buffer("nothing", None)
        self.options = {"kinds": {1, 2}, "activation": torch.relu, "array": np.ones(3), "when": datetime.date(2020, 1, 1)}
        self.narrow = nn.Parameter(torch.randn(2, 2).bfloat16())
        self.net.register_forward_hook(print_hook)


def print_hook(*_: Any) -> None:
    """A hook at the top level of a module, so that it can be pickled."""


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_whole_module_gives_its_state_dict(legacy: bool, protocol: int, tmp_path: Path) -> None:
    net = Odd()
    torch.save(net, tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy, pickle_protocol=protocol)
    records = read_records(tmp_path / "x.pt")
    assert records.found.path == f"{__name__}.Odd"
    found = {name: records.tensor(stored) for name, stored in module_tensors(records.found).items()}
    wanted = net.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in wanted.items())


def test_a_checkpoint_beside_settings_is_read(tmp_path: Path) -> None:
    state = {"weight": torch.randn(3, 2), "bias": torch.zeros(3)}
    settings = argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("a/b"))
    torch.save({"state_dict": state, "hyper_parameters": settings, "epoch": 3}, tmp_path / "x.ckpt")
    found = read_checkpoint(tmp_path / "x.ckpt")
    assert all(torch.equal(found.tensors[name], value) for name, value in state.items())
    assert "argparse.Namespace" in found.objects


def test_modules_that_hold_each_other_and_very_many_end_with_an_error() -> None:
    one, other = Record(), Record()
    one.state, other.state = {"_modules": {"a": other}}, {"_modules": {"b": one}}
    with pytest.raises(ValueError, match="nested"):
        module_tensors(one)
    for parameters in ({"w": Stored(0, 0, (1,), (1,))}, {}):
        leaf = Record()
        leaf.state = {"_parameters": parameters}
        for _ in range(60):  # 2**60 names, of one tensor or none
            leaf, below = Record(), leaf
            leaf.state = {"_modules": {"a": below, "b": below}}
        with pytest.raises(ValueError, match="more than 100000 of them"):
            module_tensors(leaf)


CALLS: tuple[tuple[Callable[..., Any], tuple[Any, ...]], ...] = (
    (os.system, ("touch {}",)),
    (os.popen, ("touch {}",)),
    (os.mkdir, ("{}",)),
    (subprocess.call, (["touch", "{}"],)),
    (subprocess.Popen, (["touch", "{}"],)),
    (subprocess.check_output, (["touch", "{}"],)),
    (builtins.exec, ("open('{}', 'w').close()",)),
    (builtins.eval, ("open('{}', 'w').close()",)),
    (builtins.open, ("{}", "w")),
    (builtins.compile, ("open('{}', 'w')", "x", "exec")),
    (io.open, ("{}", "w")),
    (runpy._run_code, ("open('{}', 'w').close()", {})),  # type: ignore[attr-defined]
    (shutil.copy, (__file__, "{}")),
    (pathlib.Path.touch, (pathlib.PurePosixPath("{}"),)),
    (importlib.import_module, ("antigravity",)),
    (torch.load, ("{}",)),
    (torch.save, ([], "{}")),
    (np.save, ("{}", [1])),
    (torch.hub.load_state_dict_from_url, ("file://{}",)),
    (pickle.loads, (pickle.dumps(1),)),
)


def filled(value: Any, marker: Path) -> Any:
    """Put the marker's path into the texts of a call's arguments."""
    if isinstance(value, str):
        return value.replace("{}", str(marker))
    if isinstance(value, list | tuple):
        return type(value)(filled(item, marker) for item in value)
    return value


def places(call: Calls) -> Iterator[object]:
    """Where a call may stand in a checkpoint."""
    yield call
    yield {"weight": torch.ones(2), "call": call}
    yield OrderedDict(weight=torch.ones(2), call=[call])
    yield Module(call)
    yield {"model": Module(call), "more": (call,)}


@pytest.mark.parametrize("legacy", [False, True])
def test_w1_no_call_of_two_hundred_runs(legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker, source, tried = tmp_path / "marker", tmp_path / "x.pt", 0
    before = set(sys.modules)
    for function, arguments in CALLS:
        for place in places(Calls(function, *filled(arguments, marker))):
            for protocol in (2, 4):
                torch.save(place, source, _use_new_zipfile_serialization=not legacy, pickle_protocol=protocol)
                for action in (read_records, lambda path: convert(path, tmp_path / "x.safetensors", overwrite=True)):
                    tried += 1
                    with contextlib.suppress(WeightsError):
                        action(source)
                    assert not marker.exists(), f"{function} ran"
    assert tried >= 200
    assert "antigravity" not in set(sys.modules) - before


def named(module: str, name: str) -> bytes:
    return b"c" + f"{module}\n{name}\n".encode()


def pickled(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


def text(value: str) -> bytes:
    return pickle.BINUNICODE + len(value.encode()).to_bytes(4, "little") + value.encode()


STREAMS = {
    "call of an attribute": pickled(named("builtins", "getattr"), named("os", "system"), text("__call__"), b"\x86R"),
    "state of a class": pickled(named("torch", "FloatStorage"), b"}", text("dtype"), b"K\x01sb"),
    "state of a function": pickled(named("torch._utils", "_rebuild_tensor_v2"), b"}", text("__defaults__"), b")sb"),
    "state of OrderedDict": pickled(named("collections", "OrderedDict"), b"}", text("__init__"), named("os", "system"), b"sb"),
    "slots of a record": pickled(named("a", "B"), b")R", b"N}", text("__class__"), named("os", "system"), b"s\x86b"),
    "subclass through NEWOBJ": pickled(named("builtins", "type"), text("X"), named("os", "system"), b"\x85}\x87\x81"),
    "extension code": pickled(b"\x82\x01"),
    "dotted name": b"\x80\x04" + b"\x8c\x02os" + b"\x8c\x0dsystem.__call" + b"\x93.",
    "persistent id of no storage": pickled(text("x"), b"Q"),
    "tensor without values": pickled(named("torch._utils", "_rebuild_tensor_v2"), b"(N" + b"K\x00))\x89}tR"),
    "huge memo": pickled(b"Nr" + (2**31).to_bytes(4, "little")),
    "huge text": b"\x80\x04\x8d" + (2**62).to_bytes(8, "little") + b"x.",
    "deep": pickled(b"]" * 100_000 + b"a" * 99_999),
    "cut off": b"\x80\x02]q\x00",
    "tuples in tuples": pickled(b"}" + b")" + b"2\x86" * 60 + b"Ns"),
    "tuples in tuples, by a build of nothing": pickled(b"}" + b")" + b"2\x86Nb" * 60 + b"Ns"),
    "text of tuples": pickled(named("_codecs", "encode") + b")" + b"2\x86" * 60 + b"\x85R"),
    "a parameter of a storage": pickled(named("torch._utils", "_rebuild_parameter") + text("x") + b"\x85R"),
    "copies of a text": pickled(named("_codecs", "encode"), b"q\x00", text("x" * 100_000), b"\x85q\x01", b"h\x00h\x01R0" * 5_000, b"N"),
    "very many steps": pickled(b"N0" * 2_100_000 + b"N"),
    "item of a storage": pickled(named("torch", "FloatStorage"), b"K\x00K\x01s"),
}


def number(value: int) -> bytes:
    return pickle.LONG4 + len(encoded := pickle.encode_long(value)).to_bytes(4, "little") + encoded


def items(values: Iterable[bytes]) -> bytes:
    return b"](" + b"".join(values) + b"e"


def collisions(count: int) -> list[bytes]:
    return [number(position * (2**61 - 1)) for position in range(1, count)]


def copied(module: str, name: str, *argument: bytes) -> bytes:
    """Very many calls of one function with one argument, which the memo repeats."""
    return b"".join((b"](", named(module, name), b"q\x01", *argument, b"\x85q\x02", b"h\x01h\x02R" * 2000, b"e"))


NUMBERS = [b"J" + position.to_bytes(4, "little") for position in range(20_000)]
TABLE = b"}(" + b"".join(value + b"N" for value in NUMBERS) + b"u"
SIZE = named("torch", "Size")
GREEDY = {
    "bytearray": (named("builtins", "bytearray") + number(3 * 2**30) + b"\x85R", "a bytearray of a length"),
    "bytearray of a tensor": (named("builtins", "bytearray") + named("torch", "Tensor") + b")R\x85R", "a bytearray of a length"),
    "keys that collide": (b"}(" + b"".join(key + b"N" for key in collisions(40_000)) + b"u", "large numbers as keys"),
    "tuples that collide": (b"}(" + b"".join(key + b"\x85N" for key in collisions(9_000)) + b"u", "large numbers as keys"),
    "sizes that collide": (b"}(" + b"".join(SIZE + items([key]) + b"\x85RN" for key in collisions(2_000)) + b"u", "large numbers|copies"),
    "a set that collides": (named("builtins", "set") + items(collisions(40_000)) + b"\x85R", "copies of more"),
    "copies of OrderedDict": (copied("collections", "OrderedDict", TABLE), "copies of more"),
    "copies of Counter": (copied("collections", "Counter", TABLE), "copies of more"),
    "copies of a set": (copied("builtins", "set", items(NUMBERS)), "copies of more"),
    "copies of a text": (copied("_codecs", "encode", text("a" * 100_000)), "copies of more"),
    "copies of a state": (named("collections", "OrderedDict") + b")Rq\x01" + TABLE + b"q\x02" + b"h\x02b" * 2000, "copies of more"),
    "punycode": (named("_codecs", "encode") + text("\u00fc" * 30_000) + text("punycode") + b"\x86R", "an encoding other than"),
}


@pytest.mark.parametrize("inert", [False, True])
@pytest.mark.parametrize("name", GREEDY)
def test_w15_a_small_file_that_asks_for_much_time_or_memory_is_refused(name: str, inert: bool, tmp_path: Path) -> None:
    stream, words = GREEDY[name]
    (tmp_path / "x.pt").write_bytes(archived(pickled(named("a", "B") + b"0" if inert else b"", stream)))
    with pytest.raises(WeightsError, match=f"x.pt' is refused: .*({words})"):
        read_checkpoint(tmp_path / "x.pt")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("protocol", [4, 5])
def test_tensors_in_a_newer_protocol_are_read(legacy: bool, protocol: int, tmp_path: Path) -> None:
    state = {"a": torch.arange(6.0).reshape(2, 3).t(), "b": torch.ones(2, dtype=torch.bfloat16)}
    for value in (state, OrderedDict(state), defaultdict(None, state)):
        torch.save({"state_dict": value}, tmp_path / "x.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
        found = read_checkpoint(tmp_path / "x.pt").tensors
        assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("attribute", ["detach", "numel", "aminmax", "to"])
def test_methods_of_a_tensor_that_a_file_replaces_are_not_called(attribute: str, tmp_path: Path) -> None:
    tensor = named("torch._tensor", "_rebuild_from_type_v2") + b"(" + named("torch", "Tensor") * 2 + b"K\x02K\x02\x86"
    tensor += b"}" + text(attribute) + named("builtins", "set") + b"stR"
    (tmp_path / "x.pt").write_bytes(archived(pickled(b"}", text("w"), tensor, b"s")))
    with pytest.raises(WeightsError, match=f"replaces {attribute} of a Tensor"):
        read_checkpoint(tmp_path / "x.pt")


def test_methods_of_a_mapping_that_a_file_replaces_are_not_called(tmp_path: Path) -> None:
    table = named("collections", "OrderedDict") + b")R" + text("w") + named("torch", "Tensor") + b"K\x02\x85Rs"
    table += b"}" + text("items") + named("builtins", "set") + b"sb"
    for content in (table, b"}" + text("state_dict") + table + b"s"):
        (tmp_path / "x.pt").write_bytes(archived(pickled(content)))
        with pytest.raises(WeightsError, match="replaces items of a OrderedDict"):
            read_checkpoint(tmp_path / "x.pt")


def archived(content: bytes) -> bytes:
    with zipfile.ZipFile(stream := io.BytesIO(), "w", zipfile.ZIP_STORED) as file:
        file.writestr("x/data.pkl", content)
        file.writestr("x/version", "3\n")
        file.writestr("x/data/0", bytes(16))
    return stream.getvalue()


@pytest.mark.parametrize("name", STREAMS)
def test_w15_a_stream_made_by_hand_gives_an_error_or_a_record(name: str, tmp_path: Path) -> None:
    source = tmp_path / "x.pt"
    source.write_bytes(archived(STREAMS[name]))
    error, records = outcome(lambda: (check_pickles(source), read_records(source))[1])
    if error:
        assert str(source) in error
    else:
        found = records.found
        assert isinstance(found, Record | type | list) or callable(found) or found.__class__.__module__.startswith("zoo.")


def outcome(action: Callable[[], Any]) -> tuple[str, Any]:
    """Return the error of ours that an action ends with, and what it returns."""
    try:
        return "", action()
    except WeightsError as error:
        return str(error), None


def test_w2_random_changes_of_a_module_give_tensors_or_an_error_that_names_the_file(tmp_path: Path) -> None:
    chance, source = random.Random(0), tmp_path / "x.pt"
    sound = [saved(Odd(), legacy=False), saved(Odd(), legacy=True)]
    for number, content in itertools.product(range(300), sound):
        changed = bytearray(content)
        limit = len(changed) if number % 2 else min(len(changed), 4000)  # more often in the pickle
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(limit)] = chance.randrange(256)
        source.write_bytes(changed[: chance.randrange(len(changed))] if number % 10 == 0 else changed)
        error, _ = outcome(lambda: read_checkpoint(source))
        assert not error or str(source) in error


def test_w15_a_tensor_that_is_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1).as_strided((2**50, 2), (0, 0))}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="they share or repeat their values"):
        convert(tmp_path / "x.pt", tmp_path / "x.safetensors")


def test_w15_a_pickle_with_an_archive_behind_it_is_read_as_torch_reads_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(stream := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x/data.pkl", pickle.dumps({}, 2))
        file.writestr("x/data/0", bytes(10_000_000))
    (tmp_path / "x.pt").write_bytes(pickled(b"N") + stream.getvalue())
    with pytest.raises(WeightsError, match=r"torch\.save did not write|refused"):
        read_checkpoint(tmp_path / "x.pt")


def test_an_object_that_was_never_initialised_and_settings_under_a_usual_name_are_no_obstacle(tmp_path: Path) -> None:
    torch.save({"model": argparse.Namespace(), "state": {"w": torch.ones(2)}}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="--key state "):
        read_checkpoint(tmp_path / "x.pt")
    assert list(read_checkpoint(tmp_path / "x.pt", key="state").tensors) == ["w"]
