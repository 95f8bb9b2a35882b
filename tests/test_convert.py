"""Pickles become safetensors without running any of their code, or are refused."""

from __future__ import annotations

import argparse
import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from tests.faults import payloads
from zoo.errors import OutputExistsError, WeightsError, WeightsNotFoundError
from zoo.weights.load import read
from zoo.weights.pickled.convert import convert, read_checkpoint


@pytest.fixture
def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": {"state_dict": s}, "lr": 0.1}])
def test_a_checkpoint_becomes_the_same_tensors(tmp_path: Path, net: nn.Module, wrap: Callable[..., object], legacy: bool) -> None:
    source, out = tmp_path / "model.pt", tmp_path / "model.safetensors"
    source.write_bytes(payloads.saved(wrap(net.state_dict()), legacy=legacy))
    done = convert(source, out)
    assert (done.out, done.tensors) == (out, len(net.state_dict()))
    found = read(out)
    assert all(torch.equal(found[name], tensor) for name, tensor in net.state_dict().items())


def test_tied_tensors_are_written_each_and_what_is_no_tensor_is_told(tmp_path: Path) -> None:
    shared = torch.randn(4, 4)
    torch.save({"a": shared, "b": shared, "part": shared[:2], "turned": shared.t(), "epoch": 3}, tmp_path / "x.pt")
    done = convert(tmp_path / "x.pt", tmp_path / "x.safetensors")
    assert done.skipped == ("epoch",)
    found = read(done.out)
    assert torch.equal(found["a"], found["b"])
    assert torch.equal(found["part"], shared[:2])
    assert torch.equal(found["turned"], shared.t())


def test_the_remedy_for_a_checkpoint_in_a_checkpoint_is_enough(tmp_path: Path, net: nn.Module) -> None:
    torch.save({"checkpoint": {"model": net.state_dict()}, "model": {"net": net.state_dict(), "lr": {"now": 1}}}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=r"--key checkpoint\.model --out FILE \(or model\.net\)"):
        convert(tmp_path / "x.pt", tmp_path / "x.safetensors")
    for number, key in enumerate(("checkpoint.model", "model.net")):
        assert convert(tmp_path / "x.pt", tmp_path / f"{number}.safetensors", key=key).tensors == len(net.state_dict())


def test_an_entry_is_taken_by_its_name_and_offered_where_it_is_needed(tmp_path: Path, net: nn.Module) -> None:
    torch.save({"student": {"ema": net.state_dict()}, "args": [1]}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=r"--key student\.ema --out"):
        convert(tmp_path / "x.pt", tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="did you mean 'student'"):
        convert(tmp_path / "x.pt", tmp_path / "x.safetensors", key="studnt.ema")
    assert convert(tmp_path / "x.pt", tmp_path / "x.safetensors", key="student.ema").tensors == len(net.state_dict())


def test_a_checkpoint_of_impossible_values_is_refused_by_its_own_name(tmp_path: Path) -> None:
    torch.save({"weight": torch.full((2, 2), float("nan"))}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="NaN") as caught:
        convert(tmp_path / "x.pt", tmp_path / "out.safetensors")
    assert str(caught.value).startswith(repr(str(tmp_path / "x.pt")))
    assert ".part" not in str(caught.value)


def test_a_checkpoint_that_holds_itself_ends(tmp_path: Path) -> None:
    endless: dict[str, object] = {"epoch": 3}
    endless["model"] = endless
    torch.save(endless, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="no tensors"):
        convert(tmp_path / "x.pt", tmp_path / "x.safetensors")


def test_an_existing_output_is_kept_unless_it_may_be_replaced(tmp_path: Path, net: nn.Module) -> None:
    torch.save(net.state_dict(), tmp_path / "x.pt")
    out = tmp_path / "x.safetensors"
    out.write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        convert(tmp_path / "x.pt", out)
    assert out.read_bytes() == b"mine"
    assert convert(tmp_path / "x.pt", out, overwrite=True).tensors == len(read(out))


def test_a_refused_checkpoint_leaves_no_file(tmp_path: Path) -> None:
    torch.save({"bad": torch.tensor([float("nan")])}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="NaN"):
        convert(tmp_path / "x.pt", tmp_path / "x.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


# What is said of a payload without tensors; of those with tensors, their names.
REFUSED = {
    "os.system": "holds posix.system, not tensors",
    "exec, legacy format": "exec, not tensors",
    "bare pickle": "torch.save did not write",
    "STACK_GLOBAL": "torch.save did not write",
    "runpy": "holds runpy._run_code, not tensors",
    "broken checksums": "damaged",
    "encrypted flag": "encrypted",
}
READ = {"whole module": ["linear.bias", "linear.weight"], "beside tensors": ["weight"], "inside an OrderedDict": ["weight"]}


@pytest.mark.parametrize("name", payloads.payloads(Path("x")))
def test_w1_payloads_are_refused_or_only_their_tensors_read(tmp_path: Path, name: str) -> None:
    source, out = tmp_path / "model.pt", tmp_path / "x.safetensors"
    source.write_bytes(payloads.payloads(tmp_path / "marker")[name])
    if name in READ:
        done = convert(source, out)
        assert sorted(read(out)) == READ[name]
        assert "posix.system" in done.objects
    else:
        with pytest.raises(WeightsError, match=REFUSED[name]) as caught:
            convert(source, out)
        assert "weights_only" not in str(caught.value)
        assert not out.exists()
    assert not (tmp_path / "marker").exists()


def archive(records: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in records.items():
            file.writestr(f"x/{name}", content)
    return buffer.getvalue()


def records_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        return {name.partition("/")[2]: file.read(name) for name in file.namelist()}


def more_numbers_than_bytes() -> bytes:
    """A storage that claims 1000 numbers where its record has 4."""
    records = records_of(payloads.saved({"a": torch.ones(4)}))
    pickled = records["data.pkl"]
    claimed = pickled.replace(b"K\x04tq", b"M" + struct.pack("<H", 1000) + b"tq", 1)
    assert claimed != pickled
    return archive(records | {"data.pkl": claimed.replace(b"K\x04\x85", b"M" + struct.pack("<H", 1000) + b"\x85", 1)})


def items_set_on_a_list() -> bytes:
    """SETITEMS on a list: a reader that does not look writes out of its bounds."""
    records = records_of(payloads.saved({"a": torch.ones(4)}))
    return archive(records | {"data.pkl": b"\x80\x02](K\x05K\x01u."})


TRICKS = {
    "more numbers than bytes": more_numbers_than_bytes,
    "items set on a list": items_set_on_a_list,
    "bomb": lambda: archive({"data.pkl": b"\x80\x02}.", "data/0": bytes(10_000_000)}, zipfile.ZIP_DEFLATED),
    "compressed": lambda: archive(records_of(payloads.saved({"a": torch.randn(400)})), zipfile.ZIP_DEFLATED),
}


ODD_KEYS: dict[str, tuple[dict[Any, Any], str]] = {
    "two of one name": ({1: torch.ones(2), "1": torch.zeros(2)}, "keys that give one name: 1 and '1'"),
    "a huge number": ({2**16000: torch.ones(2)}, "1 tensor under keys that are no printable names: a number of 16001 bits"),
    "a surrogate": ({"a\ud800": torch.ones(2)}, r"no printable names: a\\ud800"),
    "a line break": ({"a\nb": torch.ones(2)}, "no printable names"),
    "a tuple": ({(1, 2): torch.ones(2)}, "no printable names: a key of type tuple"),
    "a name of the header": ({"__metadata__": torch.ones(2)}, "no printable names: __metadata__"),
}


@pytest.mark.parametrize("name", ODD_KEYS)
def test_keys_that_are_no_names_are_refused_at_once(tmp_path: Path, name: str) -> None:
    value, words = ODD_KEYS[name]
    content = payloads.saved({"beside": argparse.Namespace()} | value)  # of which torch reads nothing
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=words):
        convert(tmp_path / "x.pt", tmp_path / "x.safetensors")


def test_of_two_entries_with_the_same_names_the_log_says_which_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = {"a": torch.ones(2)}
    torch.save({"model": state, "model_ema": {"a": torch.zeros(2) + 3}, "optimizer": {"state": {}}}, tmp_path / "x.pt")
    assert float(read_checkpoint(tmp_path / "x.pt").tensors["a"][0]) == 1
    assert "the entry 'model' is taken; model_ema has the same names" in caplog.text
    assert f"zoo convert {tmp_path / 'x.pt'} --key model_ema" in caplog.text
    assert float(read_checkpoint(tmp_path / "x.pt", key="model_ema").tensors["a"][0]) == 3


@pytest.mark.parametrize("beside", [None, argparse.Namespace()])
def test_a_flipped_byte_of_a_tensor_is_found(tmp_path: Path, beside: object) -> None:
    content = bytearray(payloads.saved({"a": torch.arange(1000.0), "beside": beside}))
    content[content.find(struct.pack("<f", 500.0)) + 2] ^= 0x40
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"damaged archive: Bad CRC-32 .*data/0.*fetch it again"):
        convert(tmp_path / "x.pt", tmp_path / "x.safetensors")


def test_an_archive_that_was_written_without_crcs_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)  # type: ignore[no-untyped-call]
    try:
        torch.save({"a": torch.ones(4)}, tmp_path / "x.pt")
    finally:
        torch.serialization.set_crc32_options(True)  # type: ignore[no-untyped-call]
    assert convert(tmp_path / "x.pt", tmp_path / "x.safetensors").tensors == 1


def test_a_torchscript_archive_and_safetensors_under_another_suffix_are_named(tmp_path: Path) -> None:
    (tmp_path / "script.pt").write_bytes(archive({"constants.pkl": b"\x80\x02).", "data.pkl": b"\x80\x02}.", "code/x.py": b"pass"}))
    (tmp_path / "x.pth").write_bytes(safetensors.torch.save({"a": torch.ones(2)}))
    for name, words in (("script.pt", "TorchScript"), ("x.pth", r"rename it to x\.safetensors")):
        with pytest.raises(WeightsError, match=words):
            convert(tmp_path / name, tmp_path / "out.safetensors")


@pytest.mark.parametrize("trick", TRICKS)
def test_w15_tricks_with_archives_are_refused(tmp_path: Path, trick: str) -> None:
    source = tmp_path / "model.pt"
    source.write_bytes(TRICKS[trick]())
    with pytest.raises(WeightsError, match="would unpack" if trick == "bomb" else r"refused|compressed"):
        convert(source, tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_w15_an_old_torch_opens_no_pickle(tmp_path: Path, net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(net.state_dict(), tmp_path / "x.pt")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cu121")
    with pytest.raises(WeightsError, match=r"2\.5\.1.*torch >= 2\.10"):
        convert(tmp_path / "x.pt", tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"<html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\n", "LFS"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"??", "refused"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=words):
        convert(tmp_path / "x.pt", tmp_path / "x.safetensors")


def test_wrong_arguments_are_told(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsNotFoundError, match=r"did you mean '.*x\.safetensors'"):
        convert(tmp_path / "y.safetensors", tmp_path / "z.safetensors")
    with pytest.raises(WeightsError, match="already"):
        convert(tmp_path / "x.safetensors", tmp_path / "z.safetensors")
    with pytest.raises(WeightsError, match=r"must end with \.safetensors"):
        convert(tmp_path / "x.safetensors", tmp_path / "z.pt")


def test_the_command_converts(tmp_path: Path, net: nn.Module, capsys: pytest.CaptureFixture[str]) -> None:
    from zoo.cli import main

    torch.save({"state_dict": net.state_dict(), "epoch": 1}, tmp_path / "x.pt")
    with pytest.raises(SystemExit) as stop:
        main(["convert", str(tmp_path / "x.pt"), "--out", str(tmp_path / "new" / "x.safetensors"), "--json"])
    assert not stop.value.code
    assert json.loads(capsys.readouterr().out)["tensors"] == len(read(tmp_path / "new" / "x.safetensors"))
    with pytest.raises(SystemExit) as stop:
        main(["convert", str(tmp_path / "x.pt"), "--out", str(tmp_path / "new" / "x.safetensors")])
    assert stop.value.code == 1
    assert "--overwrite" in capsys.readouterr().err
