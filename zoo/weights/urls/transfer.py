"""Transfer of one file over https: in several connections, each of which goes on where the one before ended."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn
from urllib.parse import urlsplit

from zoo.errors import WeightsError, WeightsNotFoundError, owner_prefix
from zoo.util.atomic_write import room_for
from zoo.weights.safetensors_header import format_of

ATTEMPTS = 4  # connections for one file; each goes on where the one before ended
PAUSE = 0.5  # seconds before the second attempt, doubled for each further one
MAX_BYTES = 10**12  # no published weights are as large
_MEANINGS = {401: ": it needs a login", 403: ": it needs a login, or may not be fetched from here", 404: ": there is no such file"}
_MEANINGS |= {410: ": the file was removed for good"}
_FINAL = ("UnsupportedProtocol", "TooManyRedirects", "InvalidURL", "InvalidSchema", "LocalProtocolError")
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class _ResponseHeader(NamedTuple):
    """Response header: offset of the first byte, total size in bytes, ETag."""

    start: int
    total: int
    etag: str


class _InterruptedError(Exception):
    """The connection ended before the file did."""


def fetch(url: str, path: Path, owner: str, size: int) -> None:
    """Fetch the file of a URL, going on where an earlier call ended.

    Args:
        url: A checked URL.
        path: The file to write; what is there of it is kept beside it.
        owner: Name of the backbone, for messages.
        size: Bytes that the file must have; 0 if unknown.

    Raises:
        WeightsNotFoundError: If it cannot be fetched.
        WeightsError: If the server gives something else than the file.
        DiskFullError: If there is no room for it.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        _fail(url, path, owner, "HF_HUB_OFFLINE forbids the network")
    part = path.with_name(f"{path.name}.part")
    for attempt in range(ATTEMPTS):
        before = part.stat().st_size if part.exists() else 0
        try:
            _stream(url, part, owner, size)
        except _InterruptedError as error:
            reason = str(error)
        else:
            _check_format(part, url, owner)
            part.replace(path)
            return
        if attempt + 1 < ATTEMPTS and (not part.exists() or part.stat().st_size == before):
            time.sleep(PAUSE * 2**attempt)
    kept = f"; {part.stat().st_size} bytes are kept, and the next call goes on there" if part.exists() else ""
    _fail(url, path, owner, f"{reason}{kept}")


def _stream(url: str, part: Path, owner: str, size: int) -> None:
    """Fetch what is missing of a file; a partial download is resumed only if its ETag still matches."""
    tag = _tag(part)
    start = part.stat().st_size if part.exists() and _tag_text(part) else 0
    headers = {"Accept-Encoding": "identity"}  # else the length would be that of the compressed file
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": _tag_text(part)}
    with _opened(url, headers, owner) as response:
        if response.status_code == 416:  # what is there is longer than the file
            part.unlink()
            raise _InterruptedError("the file has become shorter")
        head = _checked(response, url, part, owner, size, start)
        tag.unlink(missing_ok=True)
        with room_for(part, head.total), part.open("ab" if head.start else "wb") as file:
            if head.etag:
                tag.write_text(head.etag, encoding="utf-8")
            _write(response, file, head, head.total or size or MAX_BYTES, part.name.removesuffix(".part"))
    found = part.stat().st_size
    if head.total and found != head.total:
        raise _InterruptedError(f"the connection ended after {found} of {head.total} bytes")
    tag.unlink(missing_ok=True)


@contextmanager
def _opened(url: str, headers: Mapping[str, str], owner: str) -> Iterator[Any]:
    """Open a URL with the client of the Hub, which knows proxies and certificates."""
    from huggingface_hub import get_session

    try:
        with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=30) as response:
            yield response
    except (WeightsError, WeightsNotFoundError, _InterruptedError, OSError):
        raise
    except Exception as error:  # of the client's HTTP library, which has changed more than once
        line = (str(error).strip().splitlines() or ["no message"])[0]
        if type(error).__name__ in _FINAL:  # the next attempt would end in the same way
            raise WeightsError(
                f"{owner_prefix(owner)}{url} cannot be fetched: {type(error).__name__}: {line}; check the URL and where it redirects to"
            ) from error
        raise _InterruptedError(f"{type(error).__name__}: {line}") from error


def _checked(response: Any, url: str, part: Path, owner: str, size: int, start: int) -> _ResponseHeader:
    """Check the head of an response before its body is read."""
    for step in map(urlsplit, (*(str(one.url) for one in response.history), str(response.url))):
        if step.scheme != "https" and not (step.hostname in LOOPBACK and urlsplit(url).hostname in LOOPBACK):
            raise WeightsError(
                f"{owner_prefix(owner)}{url} redirects by {step.scheme}://{step.hostname}, which is refused: only https is followed"
            )
    if response.status_code in (408, 425, 429) or response.status_code >= 500:
        raise _InterruptedError(f"the server answers {response.status_code}")
    if response.status_code not in (200, 206):
        meaning = _MEANINGS.get(response.status_code, "")
        _fail(url, part.with_suffix(""), owner, f"the server answers {response.status_code}{meaning}")
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        raise WeightsError(f"{owner_prefix(owner)}{url} answers with a web page; it may need a login, or have moved: download it by hand")
    if (encoding := response.headers.get("Content-Encoding", "identity").strip().lower()) not in ("", "identity"):
        raise WeightsError(f"{owner_prefix(owner)}{url} is sent compressed ({encoding}), unasked for: download it by hand")
    if response.status_code == 206:
        begin, total = start, _whole_size(response, part, start)
    else:
        length = response.headers.get("Content-Length", "")
        begin, total = 0, int(length) if re.fullmatch(r"\d{1,18}", length) else 0
    if total > MAX_BYTES or (size and total and total != size):
        raise WeightsError(
            f"{owner_prefix(owner)}{url} has {total} bytes, declared are {size or f'at most {MAX_BYTES}'}; this is not the declared file"
        )
    etag = response.headers.get("ETag", "")
    return _ResponseHeader(begin, total, etag if re.fullmatch(r'"[\x20-\x7e]*"', etag) else "")


def _whole_size(response: Any, part: Path, start: int) -> int:
    """Return the size of a file of which a part from ``start`` is sent; the part may end before the file does."""
    sent = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})", response.headers.get("Content-Range", "").strip())
    same = not start or response.headers.get("ETag", "") == _tag_text(part)
    if not sent or int(sent[1]) != start or not same:
        part.unlink(missing_ok=True)
        raise _InterruptedError("the server sends another part, or one of another file, than asked for")
    return int(sent[2])


def _tag_text(part: Path) -> str:
    """Return the ETag of a partial download; empty if there is none that may be sent back."""
    try:
        return _tag(part).read_text(encoding="ascii")
    except (FileNotFoundError, UnicodeDecodeError):
        return ""


def _tag(part: Path) -> Path:
    """Return the file with the ETag of a partial download."""
    return part.with_name(f"{part.name}.etag")


def _write(response: Any, file: BinaryIO, head: _ResponseHeader, limit: int, name: str) -> None:
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]  # not in its __all__

    with tqdm(total=head.total or None, initial=head.start, unit="B", unit_scale=True, desc=name) as bar:  # type: ignore[no-untyped-call]  # huggingface_hub has no types here
        for chunk in response.iter_raw():
            if file.tell() + len(chunk) > limit:
                raise _InterruptedError("the server sends more bytes than it announced")
            file.write(chunk)
            bar.update(len(chunk))


def _check_format(part: Path, url: str, owner: str) -> None:
    with part.open("rb") as file:
        found = format_of(file.read(512))
    if found and not found.convertible:
        part.unlink()
        raise WeightsError(f"{owner_prefix(owner)}{url} did not give weights: {found.text}; download it by hand")


def _fail(url: str, path: Path, owner: str, reason: str) -> NoReturn:
    raise WeightsNotFoundError(
        f"{owner_prefix(owner)}cannot get {url}, and it is not in the cache ({reason}); check the network, or copy the file, from "
        f"a machine that has it, to {str(path)!r}"
    )
