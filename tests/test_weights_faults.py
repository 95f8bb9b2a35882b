"""What the gate for weights refuses: payloads, malformed headers, damaged files, wrong names, implausible values."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

import zoo
from tests.faults import mutate, payloads
from tests.faults.fake_hub import fill_cache, in_child
from tests.toy import ToyNet, toy_spec
from zoo.declare import Weights
from zoo.engine.rundir.checkpoint import read_newest
from zoo.errors import CoverageError, WeightsError, WeightsNotFoundError, ZooError
from zoo.models.backbone import Backbone
from zoo.weights.load import read
from zoo.weights.locate import locate
from zoo.weights.pickled.convert import convert
from zoo.weights.safetensors_header import read_header

COMMIT = "a" * 40
EXTENSIONS = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".joblib", ".h5")


@pytest.fixture
def good() -> bytes:
    return safetensors.torch.save(ToyNet().state_dict())


def refused(action: Callable[[], object]) -> bool:
    try:
        action()
    except (WeightsError, WeightsNotFoundError, zoo.ZooError):
        return True
    return False


def public_paths(folder: Path, content: bytes, cache: Path) -> dict[str, Callable[[], object]]:
    """Every way in which a user's file reaches the library."""
    plain, renamed = folder / "model.pt", folder / "renamed" / "model.safetensors"
    for path in (plain, renamed):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    saved = zoo.get("toy/net", weights=False).adapt(2).save(folder / "saved")
    (saved / "model.safetensors").write_bytes(content)
    told = json.loads((saved / "config.json").read_text())
    told["zoo"]["sha256"] = hashlib.sha256(content).hexdigest()
    (saved / "config.json").write_text(json.dumps(told))
    step = folder / "checkpoint" / "step-0000000001"
    step.mkdir(parents=True)
    (step / "state.json").write_text("{}")
    (step / "model.safetensors").write_bytes(content)
    files = {path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size": path.stat().st_size} for path in step.iterdir()}
    (step / "manifest.json").write_text(json.dumps({"schema": 1, "step": 1, "files": files}))
    fill_cache(cache, "acme/net", {"model.safetensors": content, "pytorch_model.bin": content})
    toy = toy_spec("toy/hub", weights=Weights(repo="acme/net"))
    return {
        "zoo.get(weights=FILE)": lambda: zoo.get("toy/net", weights=plain).build(),
        "zoo.get(weights=renamed)": lambda: zoo.get("toy/net", weights=renamed).build(),
        "adapt": lambda: zoo.get("toy/net", weights=renamed).adapt(2),
        "zoo.load": lambda: zoo.load(saved),
        "zoo.get(saved)": lambda: zoo.get(saved).build(),
        "resume": lambda: read_newest(folder / "checkpoint"),
        "Hub, safetensors": lambda: Backbone(toy).build(),
        "Hub, pickle": lambda: Backbone(toy.replace(weights=Weights(repo="acme/net", file="pytorch_model.bin"))).build(),
        "convert": lambda: convert(plain, folder / "out.safetensors"),
        "convert, renamed": lambda: convert(renamed, folder / "out2.safetensors"),
    }


@pytest.mark.usefixtures("toys")
def test_w1_no_public_path_runs_a_payload(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker, opened = tmp_path / "marker", list[object]()
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **options: (opened.append(options.get("weights_only")), load(*args, **options))[1])
    wrong, tried = [], 0
    for number, (name, content) in enumerate(payloads.payloads(marker).items()):
        for way, action in public_paths(tmp_path / str(number), content, cache / str(number)).items():
            monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache / str(number)))
            tried += 1
            if not (refused(action) or "convert" in way) or marker.exists():  # which may read the tensors beside a payload
                wrong.append(f"{name} by {way}")
    assert tried >= 60
    assert not wrong, f"{len(wrong)} of {tried}: {wrong}"
    assert opened, "convert asks torch"
    assert set(opened) == {True}
    payloads.control(marker)
    assert marker.exists(), "the payloads work where they are let"


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("extension", EXTENSIONS)
def test_w1_a_payload_with_another_extension_is_refused(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"model{extension}"
    path.write_bytes(payloads.saved(payloads.touch(tmp_path / "marker")))
    with pytest.raises(WeightsError, match=r"posix\.system|safetensors and checkpoints of torch\.save"):
        zoo.get("toy/net", weights=path).build()
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("name", mutate.malformed())
def test_w2_a_malformed_header_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(mutate.malformed()[name])
    with pytest.raises(WeightsError, match=r"toy/net: .*model\.safetensors"):
        read(path, "toy/net")


def test_w2_the_file_that_the_malformed_ones_are_made_from_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(mutate.file(mutate.GOOD))
    assert len(mutate.malformed()) == 29
    assert set(read(path, pretrained=False)) == {"a", "b"}


def sweep(path: Path, seconds: float) -> tuple[int, int, float]:
    """Return how many mutated headers were tried and accepted, and the 95th percentile of the time for one, in seconds.

    What is accepted has to be a file that the format's own reader reads in the same way.
    """
    chance, times, accepted = random.Random(0), list[float](), 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        path.write_bytes(mutate.mutated(chance))
        start = time.perf_counter()
        try:
            header = read_header(path, "")
        except WeightsError:
            header = None
        times.append(time.perf_counter() - start)
        if header is not None:
            accepted += 1
            theirs = safetensors.torch.load_file(path, backend="pread")
            assert {name: tuple(tensor.shape) for name, tensor in theirs.items()} == {name: told.shape for name, told in header.items()}
    return len(times), accepted, sorted(times)[int(0.95 * len(times))]


@pytest.mark.parametrize("seconds", [2, pytest.param(60, marks=pytest.mark.sweep)])
def test_w2_random_mutations_of_a_header_are_refused_or_read_as_the_format_says(tmp_path: Path, seconds: int) -> None:
    tried, accepted, slow = sweep(tmp_path / "model.safetensors", seconds)
    print(f"{tried} mutations, {accepted} still valid, 95 % within {1e3 * slow:.2f} ms")
    assert tried > 50 * seconds
    assert slow < 0.01


@pytest.mark.parametrize("number", [900_000, 150_000])
def test_w3_a_header_of_very_many_tensors_is_refused_at_once(tmp_path: Path, number: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(mutate.many_empty_tensors(number))
    start = time.perf_counter()
    with pytest.raises(WeightsError, match=r"at most 10000000|more than 100000"):
        read(path)
    assert time.perf_counter() - start < 0.1


def flipped(content: bytes) -> bytes:
    return content[:-5] + bytes([content[-5] ^ 4]) + content[-4:]


W4 = {
    "bit flip": flipped,
    "truncated": lambda content: content[:-100],
    "no bytes": lambda content: b"",
    "LFS pointer": lambda content: b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123456\n",
    "HTML page": lambda content: b"<!DOCTYPE html><html><body>Sign in</body></html>",
    "file of another model": lambda content: safetensors.torch.save({"other": torch.ones(3)}),
}


@pytest.mark.parametrize("fault", W4)
def test_w4_a_damaged_file_in_the_cache_is_refused_and_kept(cache: Path, good: bytes, fault: str) -> None:
    link = fill_cache(cache, "acme/net", {"model.safetensors": good}) / "model.safetensors"
    assert locate(Weights(repo="acme/net"), "toy/net") == link
    link.resolve().write_bytes(W4[fault](good))
    with pytest.raises(WeightsError, match=r"toy/net: .*damaged.*fetch it again"):
        locate(Weights(repo="acme/net"), "toy/net")
    assert link.exists(), "it may be the user's only copy"


def test_w4_a_pin_of_another_file_is_refused(cache: Path, good: bytes) -> None:
    fill_cache(cache, "acme/net", {"model.safetensors": good})
    with pytest.raises(WeightsError, match="pinned is"):
        locate(Weights(repo="acme/net", sha256="0" * 64), "toy/net")
    with pytest.raises(WeightsError, match="bytes, pinned are 7"):
        locate(Weights(repo="acme/net", size=7), "toy/net")


@pytest.mark.parametrize(("fault", "words"), [("LFS pointer", "Git LFS pointer"), ("HTML page", "HTML page"), ("no bytes", "it is empty")])
def test_what_stands_in_place_of_weights_is_named(tmp_path: Path, good: bytes, fault: str, words: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(W4[fault](good))
    with pytest.raises(WeightsError, match=words):
        read(path)


MISFITS: dict[str, Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]] = {
    "one block missing": lambda state: {name: tensor for name, tensor in state.items() if not name.startswith("blocks.1.")},
    "half of the shapes wrong": lambda state: {
        name: tensor[:-1].clone() if index % 2 and tensor.ndim else tensor for index, (name, tensor) in enumerate(state.items())
    },
    "head of a home model only": lambda state: {"fc.weight": torch.ones(2, 8), "fc.bias": torch.ones(2)},
    "integers for numbers": lambda state: {name: tensor.view(torch.int32) if tensor.ndim else tensor for name, tensor in state.items()},
    "no tensors": lambda state: {},
}


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("misfit", MISFITS)
def test_w8_weights_that_do_not_fill_the_backbone_are_an_error(tmp_path: Path, misfit: str) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(MISFITS[misfit](ToyNet().state_dict()), path)
    with pytest.raises(CoverageError, match=r"fills \d+ of \d+ tensors"):
        zoo.get("toy/net", weights=path).build()


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_w8_wrappers_are_taken_off_and_every_tensor_is_the_files_after_construction(tmp_path: Path, prefix: str) -> None:
    state = {name: torch.rand_like(tensor) if tensor.is_floating_point() else tensor for name, tensor in ToyNet().state_dict().items()}
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({prefix + name: tensor for name, tensor in state.items()}, path)
    built = zoo.get("toy/net", weights=path).build().state_dict()
    assert all(torch.equal(built[name], tensor) for name, tensor in state.items())


LAYOUTS: dict[str, tuple[str, dict[str, str]]] = {
    "Lightning": ("model.", {"loss.weight": "fc.weight"}),
    "Lightning, compiled": ("model._orig_mod.", {}),
    "MoCo": ("module.encoder_q.", {"module.encoder_k.conv1.weight": "conv1.weight", "module.queue": "conv1.weight"}),
    "DINO": ("backbone.", {"head.mlp.0.weight": "conv1.weight"}),
    "a detector": ("backbone.body.", {"rpn.head.conv.weight": "conv1.weight"}),
}


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_checkpoint_of_a_training_framework_is_read_below_its_prefix(
    layout: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prefix, others = LAYOUTS[layout]
    state = {name: torch.rand_like(tensor) if tensor.is_floating_point() else tensor for name, tensor in ToyNet().state_dict().items()}
    more = {name: torch.zeros_like(state.get(source, torch.ones(2))) + 1 for name, source in others.items()}
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({prefix + name: tensor for name, tensor in state.items()} | more, path)
    built = zoo.get("toy/net", weights=path).build().state_dict()
    assert all(torch.equal(built[name], tensor) for name, tensor in state.items())
    taken = prefix.removeprefix("module.").replace("_orig_mod.", "")
    assert f"below {taken!r}, which was taken off" in caplog.text


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("extra", ["blocks.7.weight", "blocks.1.se.weight", "conv2.weight", "bn1.gate.weight"])
def test_the_weights_of_a_deeper_or_another_network_are_an_error_that_counts_what_is_left(
    extra: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(ToyNet().state_dict() | {extra: torch.ones(2), "fc.weight": torch.ones(2, 8)}, path)
    with pytest.raises(CoverageError, match=rf"1 tensor more inside its blocks: {extra}"):
        zoo.get("toy/net", weights=path).build()
    zoo.get("toy/net", weights=path, allow_partial=True).build()
    assert "more inside its blocks" in caplog.text


@pytest.mark.parametrize("extra", ["stage4.conv1.weight", "stage2.conv3.weight"])
def test_stages_whose_names_end_with_a_number_are_blocks(extra: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    state = zoo.get("zoo/glyphnet", weights=False).build().state_dict()
    safetensors.torch.save_file(state | {extra: torch.ones(2), "fc2.weight": torch.ones(2), "head1.weight": torch.ones(2)}, path)
    with pytest.raises(CoverageError, match=rf"1 tensor more inside its blocks: {extra}"):
        zoo.get("zoo/glyphnet", weights=path).build()


@pytest.mark.usefixtures("toys")
def test_a_tensor_with_and_without_the_prefix_of_a_wrapper_is_refused(tmp_path: Path) -> None:
    state = ToyNet().state_dict()
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(state | {f"module.{name}": tensor + 1 for name, tensor in state.items()}, path)
    with pytest.raises(CoverageError, match=r"tensors twice: .*'blocks\.0\.bn\.bias' and 'module\.blocks\.0\.bn\.bias'"):
        zoo.get("toy/net", weights=path).build()


@pytest.mark.usefixtures("toys")
def test_submodules_that_were_compiled_by_themselves_are_filled(tmp_path: Path) -> None:
    path, state = tmp_path / "model.safetensors", ToyNet().state_dict()
    safetensors.torch.save_file({name.replace("blocks.", "blocks._orig_mod."): tensor for name, tensor in state.items()}, path)
    built = zoo.get("toy/net", weights=path).build().state_dict()
    assert all(torch.equal(built[name], tensor) for name, tensor in state.items())


@pytest.mark.usefixtures("toys")
def test_a_negative_variance_is_refused(tmp_path: Path) -> None:
    path, state = tmp_path / "model.safetensors", ToyNet().state_dict()
    safetensors.torch.save_file(state | {"bn1.running_var": state["bn1.running_var"] - 2}, path)
    with pytest.raises(WeightsError, match=r"negative variances in 1 tensor: bn1\.running_var"):
        zoo.get("toy/net", weights=path).build()


@pytest.mark.usefixtures("toys")
def test_nothing_that_fills_no_tensor_is_ever_pretrained(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({"fc.weight": torch.ones(2, 8)}, path)
    with pytest.raises(CoverageError, match=r"\(0 %\)") as caught:
        zoo.get("toy/net", weights=path, allow_partial=True).build()
    assert "allow_partial" not in str(caught.value)


def spoilt(value: float | None) -> dict[str, torch.Tensor]:
    state = ToyNet().state_dict()
    if value is None:
        return {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    state["conv1.weight"].view(-1)[3] = value
    return state


@pytest.mark.parametrize(
    ("value", "words"),
    [(float("nan"), "NaN"), (float("-inf"), "infinity"), (1e37, r"above 1e\+30"), (-1e37, r"above 1e\+30"), (None, "zero")],
)
def test_w9_values_that_no_training_gives_are_refused_by_tensor(tmp_path: Path, value: float | None, words: str) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(spoilt(value), path)
    with pytest.raises(WeightsError, match=words if value is None else rf"{words}.*conv1\.weight"):
        read(path)


def test_w9_the_state_of_an_optimizer_may_be_zero_or_large_but_not_infinite(tmp_path: Path) -> None:
    path = tmp_path / "optimizer.safetensors"
    safetensors.torch.save_file({"moment": torch.zeros(2, 2), "scale": torch.tensor([1e37])}, path)
    assert set(read(path, pretrained=False)) == {"moment", "scale"}
    safetensors.torch.save_file({"moment": torch.tensor([float("inf")])}, path)
    with pytest.raises(WeightsError, match="moment"):
        read(path, pretrained=False)


def test_files_of_every_float_width_are_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
    state = {str(kind): torch.ones(2, 2).to(kind) for kind in kinds} | {"empty": torch.empty(0, 3), "number": torch.tensor(3)}
    safetensors.torch.save_file(state, path)
    assert {name: tensor.dtype for name, tensor in read(path).items()} == {name: tensor.dtype for name, tensor in state.items()}


SIGBUS = """
import os, pathlib, sys
import torch, safetensors.torch
from zoo.weights.load import read
path, fault, when = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
content = safetensors.torch.save({"a": torch.arange(1.0, 300001.0), "b": torch.ones(300, 300)})
def spoil():
    if fault == "truncate": os.truncate(path, 4096)
    elif fault == "empty": os.truncate(path, 0)
    elif fault == "overwrite": path.write_bytes(bytes(len(content)))
    elif fault == "replace": path.unlink(); path.write_bytes(b"x")
    else: path.write_bytes(content[: len(content) // 2])
bad = []
for fault in ("truncate", "empty", "overwrite", "replace", "half"):
    for when in ("before", "after"):
        path.write_bytes(content)
        if when == "before":
            import zoo.weights.load as gate
            header = gate.read_header
            gate.read_header = lambda *given, **named: (header(*given, **named), spoil())[0]  # after the check, before the reading
            try:
                state = gate.read(path)
            except gate.WeightsError:
                continue
            finally:
                gate.read_header = header
            bad += [f"{fault} {when}: read"]
        else:
            state = read(path)
            spoil()
            if float(state["a"].sum()) != float(torch.arange(1.0, 300001.0).sum()) or float(state["b"].sum()) != 90000.0:
                bad.append(f"{fault} {when}: values changed")
print(bad)
"""


def test_w12_a_file_spoilt_while_it_is_used_ends_no_process_and_changes_no_value(tmp_path: Path) -> None:
    done = in_child(SIGBUS, tmp_path / "model.safetensors", "", "", cache=tmp_path / "hub")
    assert done.returncode == 0, done.stderr
    # Overwritten with zeros in the moment between check and reading: all zero, refused as such.
    assert done.stdout.strip() == "[]"


def test_only_blobs_of_the_cache_are_mapped(cache: Path, good: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used, load, copy_in = list[str](), safetensors.torch.load_file, zoo.weights.load.copy_tensors
    monkeypatch.setattr(safetensors.torch, "load_file", lambda path, backend: (used.append(backend), load(path, backend=backend))[1])
    monkeypatch.setattr(zoo.weights.load, "copy_tensors", lambda *told: (used.append("copied"), copy_in(*told))[1])
    link = fill_cache(cache, "acme/net", {"model.safetensors": good}) / "model.safetensors"
    copy = tmp_path / "model.safetensors"
    copy.write_bytes(good)
    alias = tmp_path / "alias.safetensors"
    alias.symlink_to(copy)
    for path in (link, copy, alias):
        read(path)
    assert used == ["mmap", "copied", "copied"]


def test_every_dtype_and_shape_is_copied_bit_for_bit(tmp_path: Path) -> None:
    dtypes = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
    state = {str(dtype): torch.arange(1, 8).to(dtype) for dtype in dtypes}
    state |= {"flag": torch.tensor([True, False]), "scalar": torch.tensor(7.0), "none": torch.empty(0, 4), "large": torch.randn(3000, 1000)}
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(state, path)
    told = read(path, pretrained=False)
    assert told.keys() == state.keys()
    for name, tensor in state.items():
        assert told[name].dtype == tensor.dtype
        assert torch.equal(told[name], tensor)
    assert len({tensor.untyped_storage().data_ptr() for tensor in told.values() if tensor.numel()}) == len(told) - 1


def shards(state: dict[str, torch.Tensor], number: int = 2) -> dict[str, bytes]:
    """Return the files of a sharded model."""
    names = [f"model-{index + 1:05d}-of-{number:05d}.safetensors" for index in range(number)]
    parts: dict[str, dict[str, torch.Tensor]] = {name: {} for name in names}
    for part, (name, tensor) in zip(itertools.cycle(names), state.items(), strict=False):
        parts[part][name] = tensor
    index = {"metadata": {}, "weight_map": {name: part for part, tensors in parts.items() for name in tensors}}
    return {part: safetensors.torch.save(tensors) for part, tensors in parts.items()} | {
        "model.safetensors.index.json": json.dumps(index).encode()
    }


def write_all(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("where", ["folder", "cache"])
def test_shards_are_read_as_one_file(where: str, tmp_path: Path, cache: Path) -> None:
    state = {name: torch.rand_like(tensor) if tensor.is_floating_point() else tensor for name, tensor in ToyNet().state_dict().items()}
    if where == "cache":
        fill_cache(cache, "acme/net", shards(state))
        backbone = Backbone(toy_spec(weights=Weights(repo="acme/net")))
    else:
        write_all(tmp_path / "sharded", shards(state))
        backbone = zoo.get("toy/net", weights=tmp_path / "sharded")
    built = backbone.build().state_dict()
    assert all(torch.equal(built[name], tensor) for name, tensor in state.items())


def test_w4_swapped_shards_are_refused(tmp_path: Path, cache: Path) -> None:
    files = shards(ToyNet().state_dict())
    first, second, _ = sorted(files)[:3]
    write_all(tmp_path / "swapped", files | {first: files[second], second: files[first]})
    with pytest.raises(WeightsError, match="differ"):
        read(tmp_path / "swapped" / "model.safetensors.index.json")
    snapshot = fill_cache(cache, "acme/net", files)
    blob = (snapshot / second).resolve()
    blob.write_bytes(flipped(files[second]))
    with pytest.raises(WeightsError, match="damaged"):
        locate(Weights(repo="acme/net"), "toy/net")


def test_one_digest_pins_every_file_of_a_sharded_model(tmp_path: Path) -> None:
    files = shards(ToyNet().state_dict())
    write_all(tmp_path, files)
    index = tmp_path / "model.safetensors.index.json"
    listing = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items()))
    pinned = Weights(file=str(index), sha256=hashlib.sha256(listing.encode()).hexdigest())
    assert locate(pinned, "toy/net") == index
    part = tmp_path / min(files)
    part.write_bytes(flipped(part.read_bytes()))
    with pytest.raises(WeightsError, match="pinned is"):
        locate(pinned, "toy/net")


@pytest.mark.parametrize("fault", ["missing", "not JSON", "no map", "pickle", "extra tensor"])
def test_a_wrong_index_is_refused(tmp_path: Path, fault: str) -> None:
    files = shards(ToyNet().state_dict())
    index = json.loads(files["model.safetensors.index.json"])
    if fault == "missing":
        del files[min(files)]
    elif fault == "pickle":
        index["weight_map"]["conv1.weight"] = "pytorch_model.bin"
    elif fault == "extra tensor":
        index["weight_map"]["more"] = min(files)
    text = {"not JSON": b"{", "no map": b"[]"}.get(fault, json.dumps(index).encode())
    write_all(tmp_path, files | {"model.safetensors.index.json": text})
    with pytest.raises(ZooError, match=r"index|shard"):
        read(tmp_path / "model.safetensors.index.json", "toy/net")
