"""Weights of a URL: fetched once from a local server, converted, remembered, and refused where they are something else."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import threading
import zlib
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import safetensors.torch
import torch
from torch import nn

from tests.faults.fake_hub import fill_cache
from tests.faults.file_server import FileServer
from tests.toy import ToyNet, toy_spec
from zoo.declare import Weights
from zoo.errors import DeclarationError, DiskFullError, OutputPermissionError, WeightsError, WeightsNotFoundError
from zoo.models.backbone import Backbone
from zoo.weights.converted import converted_folder
from zoo.weights.load import read
from zoo.weights.locate import locate
from zoo.weights.urls import transfer as module
from zoo.weights.urls.download import Downloaded, download, locked


def fetched(url: str, owner: str = "", **declared: object) -> Downloaded:
    with locked(url):
        return download(url, owner, **declared)  # type: ignore[arg-type]


def saved(value: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != "lock" and path.suffix != ".lock")


CONTENT = bytes(range(256)) * 40_000
REFUSED = [
    ("http://example.org/a/net.pt", "https only"),
    ("ftp://example.org/a/net.pt", "download the file and give its path"),
    ("hf://owner/model/net.pt", "download the file and give its path"),
    (Path("https://example.org/a/net.pt"), "lost a slash"),
    ("https://example.org/a/net.onnx", "ONNX"),
    ("https://example.org/a/page", "none of the suffixes"),
]


@pytest.mark.parametrize("etags", [True, False])
def test_a_file_is_fetched_once_and_goes_on_where_the_connection_ended(server: FileServer, own_cache: Path, etags: bool) -> None:
    server.files["/a/x.bin"], server.cut, server.etags = CONTENT, [3_000_000, 1_000_000], etags
    found = fetched(f"{server.url}/a/x.bin")
    assert found.path.read_bytes() == CONTENT
    assert found.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert server.asked == [("/a/x.bin", ""), *[("/a/x.bin", f"bytes={start}-" if etags else "") for start in (3_000_000, 4_000_000)]]
    assert fetched(f"{server.url}/a/x.bin") == found
    assert len(server.asked) == 3
    assert files(own_cache) == ["source.json", "x.bin"]


def test_weights_given_as_a_url_are_fetched_once_and_fill_the_backbone(server: FileServer, own_cache: Path) -> None:
    source = ToyNet()
    server.files["/a/net.pt"] = saved(source.state_dict())
    for _ in range(2):
        built = Backbone(toy_spec(), weights=f"{server.url}/a/net.pt").build()
        assert all(torch.equal(value, built.state_dict()[name]) for name, value in source.state_dict().items())
    assert server.asked == [("/a/net.pt", "")]


@pytest.mark.parametrize(("url", "reason"), REFUSED, ids=[str(url) for url, _ in REFUSED])
def test_a_url_that_may_not_be_fetched_is_refused_whole_before_anything_is_built(url: str | Path, reason: str) -> None:
    with pytest.raises(WeightsError, match=reason) as caught:
        Backbone(toy_spec(), weights=url)
    assert str(url).rpartition("/")[2] in str(caught.value)
    assert isinstance(url, Path) or url.startswith("https") or repr(url) in str(caught.value)


def test_what_was_fetched_is_kept_for_the_next_call(server: FileServer, own_cache: Path) -> None:
    server.files["/x.bin"], server.cut = CONTENT, [1_000_000, 0, 0, 0]
    with pytest.raises(WeightsNotFoundError, match="1000000 bytes are kept"):
        fetched(f"{server.url}/x.bin", "toy/net")
    assert fetched(f"{server.url}/x.bin").path.read_bytes() == CONTENT
    assert server.asked[-1] == ("/x.bin", "bytes=1000000-")


def test_a_file_that_changes_on_the_way_is_fetched_anew(server: FileServer, own_cache: Path) -> None:
    server.files["/x.bin"], server.cut = CONTENT, [1_000_000, 0, 0, 0]
    with pytest.raises(WeightsNotFoundError):
        fetched(f"{server.url}/x.bin")
    server.files["/x.bin"] = CONTENT[::-1]
    assert fetched(f"{server.url}/x.bin").path.read_bytes() == CONTENT[::-1]
    server.files["/x.bin"] = b"shorter"
    for name in ("x.bin", "source.json"):
        next(own_cache.rglob(name)).unlink()
    assert fetched(f"{server.url}/x.bin").path.read_bytes() == b"shorter"


def test_another_file_than_declared_or_remembered_is_refused_and_removed(server: FileServer, own_cache: Path) -> None:
    server.files["/x.bin"] = CONTENT
    url = f"{server.url}/x.bin"
    for declared, fault in (({"size": 5}, "declared are 5"), ({"sha256": "0" * 64}, "declared is 000")):
        with pytest.raises(WeightsError, match=fault):
            fetched(url, **declared)
        assert "x.bin" not in files(own_cache)
    first = fetched(url, sha256=hashlib.sha256(CONTENT).hexdigest(), size=len(CONTENT))
    first.path.unlink()
    server.files["/x.bin"] = CONTENT[::-1]
    with pytest.raises(WeightsError, match=f"at first it was {first.sha256}"):
        fetched(url)
    server.files["/x.bin"] = CONTENT
    assert fetched(url) == first


def test_a_new_pin_is_taken_although_the_url_gave_another_file_before(server: FileServer, own_cache: Path) -> None:
    url, newer = f"{server.url}/x.bin", CONTENT[::-1]
    server.files["/x.bin"] = CONTENT
    fetched(url).path.unlink()
    server.files["/x.bin"] = newer
    again = fetched(url, sha256=hashlib.sha256(newer).hexdigest())
    assert again.path.read_bytes() == newer
    assert fetched(url) == again, "the record is that of the pinned file"


@pytest.mark.parametrize(
    ("code", "kind", "body", "text", "error"),
    [
        (200, "text/html", b"<html>log in</html>", "web page", WeightsError),
        (200, "application/octet-stream", b"<!DOCTYPE html><html>", "HTML page", WeightsError),
        (200, "application/octet-stream", b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer", WeightsError),
        (200, "application/octet-stream", b"", "it is empty", WeightsError),
        (404, "text/plain", b"", "answers 404", WeightsNotFoundError),
        (403, "text/plain", b"", "answers 403", WeightsNotFoundError),
        (503, "text/plain", b"", "answers 503", WeightsNotFoundError),
    ],
)
def test_what_is_no_file_is_named_and_not_kept(
    code: int, kind: str, body: bytes, text: str, error: type[Exception], server: FileServer, own_cache: Path
) -> None:
    server.answer = lambda handler: handler.reply(code, body, {"Content-Type": kind}) is None
    with pytest.raises(error, match=text) as caught:
        fetched(f"{server.url}/x.pt", "toy/net")
    assert str(caught.value).startswith("toy/net: ")
    assert len(server.asked) == (module.ATTEMPTS if code == 503 else 1)
    assert files(own_cache) == []


def test_a_redirect_is_followed_but_not_out_of_https(server: FileServer, own_cache: Path) -> None:
    server.files["/there.bin"] = CONTENT

    def redirect(handler: Any, to: str = "") -> bool:
        if handler.path != "/here.bin":
            return False
        handler.send_response(302)
        handler.send_header("Location", to or f"{server.url}/there.bin")
        handler.end_headers()
        return True

    server.answer = redirect
    assert fetched(f"{server.url}/here.bin").path.name == "here.bin"
    elsewhere = server.url.replace("127.0.0.1", "127.0.0.2")
    server.answer = lambda handler: redirect(handler, f"{elsewhere}/there.bin")
    with pytest.raises((WeightsError, WeightsNotFoundError)):
        fetched(f"{server.url}/here.bin?again")
    for url, text in (
        ("http://example.org/x.pt", "https only"),
        ("file:///etc/passwd", "https only"),
        ("https://me:pw@a.org/x.pt", "password"),
    ):
        with pytest.raises(WeightsError, match=text):
            fetched(url)


def test_a_file_whose_digest_begins_otherwise_than_declared_is_removed_and_not_remembered(server: FileServer, own_cache: Path) -> None:
    right, wrong = saved(ToyNet().state_dict()), saved(ToyNet().state_dict() | {"extra": torch.zeros(1)})
    digest, other = (hashlib.sha256(content).hexdigest() for content in (right, wrong))
    weights = Weights(url=f"{server.url}/net.pth", sha256_prefix=digest[:8])
    server.files["/net.pth"] = wrong
    with pytest.raises(WeightsError, match=f"{other}.*begins with {digest[:8]}"):
        locate(weights, "toy/net")
    assert files(own_cache) == []
    server.files["/net.pth"] = right
    assert read(locate(weights, "toy/net")).keys() == ToyNet().state_dict().keys()
    server.files.clear()
    assert read(locate(weights, "toy/net")).keys() == ToyNet().state_dict().keys()


def test_a_file_fetched_before_its_digest_was_declared_is_not_taken_for_the_declared_one(server: FileServer, own_cache: Path) -> None:
    server.files["/net.pth"] = saved(ToyNet().state_dict())
    locate(Weights(url=f"{server.url}/net.pth"), "toy/net")
    with pytest.raises(WeightsError, match="begins with 00000000"):
        locate(Weights(url=f"{server.url}/net.pth", sha256_prefix="0" * 8), "toy/net")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"url": "https://a.org/x.pth", "sha256_prefix": "12AB34CD"}, "is not 8 to 64"),
        ({"url": "https://a.org/x.pth", "sha256_prefix": "1234567"}, "is not 8 to 64"),
        ({"repo": "a/b", "sha256_prefix": "12345678"}, "without url"),
        ({"url": "https://a.org/x.pth", "sha256": "0" * 64, "sha256_prefix": "1" * 8}, "does not begin with"),
    ],
)
def test_first_digits_that_are_none_or_contradict_the_digest_are_refused(fields: dict[str, str], told: str) -> None:
    with pytest.raises(DeclarationError, match=told):
        Weights(**fields)  # type: ignore[arg-type]  # the fields are strings


def test_without_network_it_is_said_where_to_copy_the_file_and_that_works(
    server: FileServer, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    url = f"{server.url}/x.bin"
    with pytest.raises(WeightsNotFoundError, match="HF_HUB_OFFLINE") as caught:
        fetched(url)
    path = Path(str(caught.value).rsplit("'", 2)[1])
    path.write_bytes(CONTENT)
    assert fetched(url).path == path
    assert not server.asked


def test_several_at_once_fetch_it_once(server: FileServer, own_cache: Path) -> None:
    server.files["/x.bin"] = CONTENT
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(fetched(f"{server.url}/x.bin"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(server.asked) == 1


def test_a_full_disk_leaves_what_can_go_on(server: FileServer, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files["/x.bin"] = CONTENT
    real = module._write

    def full(answer: Any, file: Any, head: Any, limit: int, name: str) -> None:
        file.write(next(answer.iter_raw(1000)))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_write", full)
    with pytest.raises(DiskFullError, match="No space left"):
        fetched(f"{server.url}/x.bin")
    monkeypatch.setattr(module, "_write", real)
    assert fetched(f"{server.url}/x.bin").path.read_bytes() == CONTENT
    assert server.asked[-1][1] == "bytes=1000-"


FORMS = {
    "state": lambda net: saved(net.state_dict()),
    "legacy": lambda net: saved(net.state_dict(), _use_new_zipfile_serialization=False),
    "wrapped": lambda net: saved({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in net.state_dict().items()}}),
    "module": lambda net: saved(net),
    "legacy-module": lambda net: saved(net, _use_new_zipfile_serialization=False),
    "module-inside": lambda net: saved({"model": net, "optimizer": None}),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_backbone_takes_its_weights_from_a_url_in_one_line(
    form: str, server: FileServer, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(1)
    net = ToyNet()
    server.files["/release/net.pt"] = FORMS[form](net)
    spec = toy_spec("toy/there", weights=Weights(url=f"{server.url}/release/net.pt", license="mit"))
    with caplog.at_level(logging.INFO):
        built = Backbone(spec).build()
    assert "licence mit" in caplog.text
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in built.state_dict().items())
    assert files(own_cache) == ["conversion.json", "model.safetensors", "source.json"], "the checkpoint itself is not kept twice"
    server.files.clear()
    assert torch.equal(Backbone(spec).build().state_dict()["conv1.weight"], net.state_dict()["conv1.weight"])
    assert len(server.asked) == 1
    assert ("module" in form) == bool(json.loads(next(own_cache.rglob("conversion.json")).read_text())["objects"])


def test_a_conversion_that_was_changed_is_refused_and_an_interrupted_one_made_again(server: FileServer, own_cache: Path) -> None:
    server.files["/net.pt"] = saved(ToyNet().state_dict())
    weights = Weights(url=f"{server.url}/net.pt")
    path = locate(weights, "toy/net")
    path.with_name("conversion.json").unlink()
    assert locate(weights, "toy/net") == path
    with pytest.raises(WeightsError, match="pinned is 111"):
        locate(Weights(url=f"{server.url}/other.pt", sha256=path.parent.name, converted_sha256="1" * 64), "toy/net")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"was modified after conversion; remove .*converted"):
        locate(weights, "toy/net")


def test_a_checkpoint_that_cannot_be_converted_leaves_nothing_half_made(server: FileServer, own_cache: Path) -> None:
    server.files["/net.pt"] = saved({"weight": nn.Parameter(torch.full((3, 3), float("nan")))})
    with pytest.raises(WeightsError, match="NaN"):
        locate(Weights(url=f"{server.url}/net.pt"), "toy/net")
    assert not any(converted_folder().rglob("*.safetensors"))


def test_a_local_checkpoint_is_converted_into_the_cache(tmp_path: Path, own_cache: Path) -> None:
    net = ToyNet()
    (tmp_path / "net.pth").write_bytes(saved(net))
    found = Backbone(toy_spec("toy/there"), weights=tmp_path / "net.pth").build().state_dict()
    assert torch.equal(found["conv1.weight"], net.state_dict()["conv1.weight"])
    assert [path.name for path in tmp_path.glob("net*")] == ["net.pth"]


def test_a_folder_of_pickled_shards_is_read(tmp_path: Path, own_cache: Path) -> None:
    net = ToyNet()
    state = list(net.state_dict().items())
    home = tmp_path / "home"
    home.mkdir()
    table = {}
    for number, part in enumerate((state[:3], state[3:]), 1):
        name = f"pytorch_model-{number:05d}-of-00002.bin"
        (home / name).write_bytes(saved(dict(part)))
        table |= dict.fromkeys((key for key, _ in part), name)
    (home / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": table}))
    tensors = read(locate(Weights(file=str(home)), "toy/net"))
    assert all(torch.equal(tensors[key], value) for key, value in state)
    (home / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": table | {"extra": "pytorch_model-00001-of-00002.bin"}}))
    with pytest.raises(WeightsError, match="differ in extra"):
        locate(Weights(file=str(home)), "toy/net")


@pytest.mark.parametrize(
    ("name", "text"), [("net.onnx", "a file of ONNX"), ("tf_model.h5", "a file of TensorFlow"), ("net", "none of the")]
)
def test_a_file_of_another_format_is_named(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(WeightsError, match=text):
        Backbone(toy_spec("toy/there"), weights=tmp_path / name)


def test_a_folder_without_weights_lists_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "tf_model.h5").write_bytes(b"x")
    with pytest.raises(WeightsNotFoundError, match=r"the folder has: tf_model.h5"):
        Backbone(toy_spec("toy/there"), weights=tmp_path)


def test_a_checkpoint_that_cannot_be_read_is_fetched_again(server: FileServer, own_cache: Path) -> None:
    whole = saved(ToyNet().state_dict(), _use_new_zipfile_serialization=False)
    server.files["/net.pt"], server.lengths, server.etags = whole[:-100], False, False
    weights = Weights(url=f"{server.url}/net.pt")
    with pytest.raises(WeightsError):
        locate(weights, "toy/net")
    server.files["/net.pt"] = whole
    assert len(read(locate(weights, "toy/net"))) == len(ToyNet().state_dict())


def test_a_url_without_the_ending_of_weights_is_refused_before_it_is_fetched(server: FileServer, own_cache: Path) -> None:
    with pytest.raises(WeightsError, match="has none of the suffixes"):
        locate(Weights(url=f"{server.url}/files/123"), "toy/net")
    assert not server.asked


def answering(code: int, body: bytes, headers: dict[str, str]) -> Any:
    """An answer of the server to every request, with the headers as given."""

    def answer(handler: Any) -> bool:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True
        return True

    return answer


WHOLE = safetensors.torch.save({"a": torch.arange(1.0, 1001.0)})
BAD_ANSWERS = {
    "cut off without a length": (WHOLE[:2000], {}, "it is cut off"),
    "a length that is too short": (WHOLE, {"Content-Length": "2000"}, "it is cut off"),
    "an error as JSON": (b'{"error": "rate limited, come back"}', {"Content-Type": "application/json"}, "it is JSON"),
    "compressed": (zlib.compress(WHOLE), {"Content-Encoding": "deflate"}, r"compressed \(deflate\)"),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_one_bad_answer_for_safetensors_is_not_remembered(name: str, server: FileServer, own_cache: Path) -> None:
    body, headers, words = BAD_ANSWERS[name]
    weights = Weights(url=f"{server.url}/x.safetensors")
    server.answer = answering(200, body, headers)
    with pytest.raises(WeightsError, match=words):
        locate(weights, "toy/net")
    assert "source.json" not in files(own_cache)
    server.answer, server.files["/x.safetensors"] = (lambda handler: False), WHOLE
    assert locate(weights, "toy/net").read_bytes() == WHOLE


def test_a_bad_file_that_was_remembered_is_forgotten(server: FileServer, own_cache: Path) -> None:
    server.files["/x.safetensors"] = WHOLE
    weights = Weights(url=f"{server.url}/x.safetensors")
    path = locate(weights, "toy/net")
    path.write_bytes(WHOLE[:2000])
    record = json.loads(path.with_name("source.json").read_text())
    path.with_name("source.json").write_text(json.dumps(record | {"sha256": hashlib.sha256(WHOLE[:2000]).hexdigest(), "size": 2000}))
    with pytest.raises(WeightsError, match="asks the server again"):
        locate(weights, "toy/net")
    assert locate(weights, "toy/net").read_bytes() == WHOLE


def test_a_server_that_sends_a_file_in_smaller_parts_than_asked_for_gives_it_whole(server: FileServer, own_cache: Path) -> None:
    def part(handler: Any) -> bool:
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        end = min(start + 1500, len(WHOLE))
        headers = {"Content-Range": f"bytes {start}-{end - 1}/{len(WHOLE)}", "ETag": '"same"', "Content-Length": str(end - start)}
        return bool(answering(206, WHOLE[start:end], headers)(handler))

    server.answer = part
    assert fetched(f"{server.url}/x.bin").path.read_bytes() == WHOLE
    assert [asked for _, asked in server.asked] == ["", "bytes=1500-", "bytes=3000-"]


def test_a_part_of_unknown_whole_is_not_taken_for_the_file(server: FileServer, own_cache: Path) -> None:
    server.answer = answering(206, WHOLE[:100], {"Content-Range": "bytes 0-99/*", "Content-Length": "100"})
    with pytest.raises(WeightsNotFoundError, match="another part"):
        fetched(f"{server.url}/x.bin")


def test_an_etag_that_cannot_be_sent_back_does_not_block_the_url(server: FileServer, own_cache: Path) -> None:
    server.answer = answering(200, WHOLE[:1000], {"ETag": '"\u00fc"', "Content-Length": str(len(WHOLE))})
    with pytest.raises(WeightsNotFoundError, match="1000 bytes are kept"):
        fetched(f"{server.url}/x.bin")
    next(own_cache.rglob("*.part")).with_name("x.bin.part.etag").write_text('"\u00fc"', encoding="utf-8")
    server.answer, server.files["/x.bin"] = (lambda handler: False), WHOLE
    assert fetched(f"{server.url}/x.bin").path.read_bytes() == WHOLE


@pytest.mark.parametrize("to", ["file:///etc/passwd", "/x.bin"])
def test_a_redirect_that_cannot_end_is_asked_once(to: str, server: FileServer, own_cache: Path) -> None:
    server.answer = answering(302, b"", {"Location": to})
    with pytest.raises(WeightsError, match=r"^toy/net: .*(UnsupportedProtocol|TooManyRedirects)"):
        fetched(f"{server.url}/x.bin", "toy/net")
    assert len(server.asked) <= 25, "a loop is followed once"


@pytest.mark.parametrize(("code", "words"), [(401, "needs a login"), (403, "needs a login"), (410, "removed for good")])
def test_what_the_status_of_a_server_means_is_said(code: int, words: str, server: FileServer, own_cache: Path) -> None:
    server.answer = answering(code, b"", {})
    with pytest.raises(WeightsNotFoundError, match=f"{code}: .*{words}"):
        fetched(f"{server.url}/x.bin")


def test_a_cache_that_cannot_be_used_is_one_error_that_names_the_variable(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/x.safetensors"] = WHOLE
    (tmp_path / "file").write_text("x")
    (tmp_path / "net.pth").write_bytes(saved(ToyNet().state_dict()))
    for cache in (tmp_path / "file", tmp_path / "file" / "below"):
        monkeypatch.setenv("ZOO_CACHE", str(cache))
        for weights in (Weights(url=f"{server.url}/x.safetensors"), Weights(file=str(tmp_path / "net.pth"))):
            with pytest.raises(OutputPermissionError, match=r"^toy/net: zoo's cache .*/file.* cannot be used .*set ZOO_CACHE to"):
                locate(weights, "toy/net")


def test_a_folder_in_the_place_of_a_record_is_named(server: FileServer, own_cache: Path) -> None:
    server.files["/x.safetensors"] = WHOLE
    weights = Weights(url=f"{server.url}/x.safetensors")
    record = locate(weights, "toy/net").with_name("source.json")
    record.unlink()
    record.mkdir()
    with pytest.raises(OutputPermissionError, match=r"source\.json'\); remove what is in the way"):
        locate(weights, "toy/net")


def test_a_pin_that_a_file_does_not_match_says_what_to_do(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(WHOLE)
    with pytest.raises(WeightsError, match="replace it by the right one, or correct the pin"):
        locate(Weights(file=str(tmp_path / "x.safetensors"), sha256="0" * 64), "toy/net")
    path = fill_cache(cache, "acme/net", {"model.safetensors": WHOLE}) / "model.safetensors"
    for pin in ({"sha256": "0" * 64}, {"size": 5}):
        with pytest.raises(WeightsError, match="to fetch it again, remove") as caught:
            locate(Weights(repo="acme/net", revision="a" * 40, **pin), "toy/net")  # type: ignore[arg-type]  # one of two fields
        assert repr(str(path)) in str(caught.value)
        assert repr(str(path.resolve())) in str(caught.value)


@pytest.mark.parametrize(
    "url", ["ftp://a.org/x.pth", "https:///x.pth", "https://[::1/x.pth", "https://a.org:99999/x.pth", "https://exa mple/x.pth", "x.pth"]
)
def test_a_url_that_is_none_is_an_error_of_its_declaration(url: str) -> None:
    with pytest.raises(DeclarationError, match=r"url .* is no URL"):
        Weights(url=url)


def test_a_negative_size_is_an_error_of_its_declaration() -> None:
    with pytest.raises(DeclarationError, match="size is -1"):
        Weights(url="https://a.org/x.pth", size=-1)


def test_a_suffix_in_capital_letters_is_that_of_a_checkpoint(tmp_path: Path, own_cache: Path) -> None:
    (tmp_path / "NET.PTH").write_bytes(saved(ToyNet().state_dict()))
    assert read(locate(Weights(file=str(tmp_path / "NET.PTH")), "toy/net")).keys() == ToyNet().state_dict().keys()
