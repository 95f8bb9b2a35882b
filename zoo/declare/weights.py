"""Location and licence of pretrained weights."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from zoo.declare.digest_forms import SHA256_DIGITS, is_hexadecimal, is_sha256
from zoo.declare.faults import check

# Names of weights: in a folder or a repository, the first of these that exists.
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
PERMISSIVE = frozenset({"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "isc", "unlicense"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """Location of pretrained weights: a Hub repository, a URL, a file of a Python package, or a local file.

    Attributes:
        repo: Hub repository; ``file`` is then a path inside it.
        revision: Commit, tag or branch of the repository.
        package: Importable package that ships ``file``.
        file: Name or path of a safetensors file, or of a checkpoint of ``torch.save``, which is converted once.
        sha256: Digest of the file, as 64 hexadecimal digits; for the index of a sharded model, that of the listing of all its files.
        sha256_prefix: First digits of the digest, at least 8, where the publisher of a ``url`` tells no more of it.
        converted_sha256: Digest of the safetensors made of a checkpoint, in the same form.
        size: Bytes of the file; 0 if unknown.
        license: SPDX identifier in lower case, or ``unknown``.
        url: URL of a file that is not on the Hub: fetched once over https, and compared with the first download ever after.
    """

    repo: str = ""
    revision: str = ""
    package: str = ""
    file: str = WEIGHT_FILES[0]
    sha256: str = ""
    license: str = "unknown"
    url: str = ""
    size: int = 0
    converted_sha256: str = ""
    sha256_prefix: str = ""

    def __post_init__(self) -> None:
        if self.repo and self.file and not (self.package or self.sha256 or self.sha256_prefix or self.url):
            return  # fast path: every listing makes thousands of these
        url_fault = _url_fault(self.url) if self.url else ""
        places = {"repo": self.repo, "package": self.package, "url": self.url}
        given = [f"{name} {value!r}" for name, value in places.items() if value]
        digests = ("sha256", self.sha256), ("converted_sha256", self.converted_sha256)
        prefix = self.sha256_prefix
        faults = [
            (len(given) > 1, f"{' and '.join(given)} are given; there is one place"),
            *(
                (bool(value) and not is_sha256(value), f"{name} {value!r} is not {SHA256_DIGITS} hexadecimal digits")
                for name, value in digests
            ),
            (
                bool(prefix) and not (8 <= len(prefix) <= SHA256_DIGITS and is_hexadecimal(prefix)),
                f"sha256_prefix {prefix!r} is not 8 to {SHA256_DIGITS} hexadecimal digits",
            ),
            (bool(prefix) and not self.url, "sha256_prefix is given without url; give sha256"),
            (
                bool(self.sha256) and not self.sha256.startswith(prefix),
                f"sha256 {self.sha256!r} does not begin with sha256_prefix {prefix!r}",
            ),
            (not self.file, "file is empty"),
            (self.size < 0, f"size is {self.size}; it is a number of bytes, or 0 if unknown"),
            (bool(url_fault), f"url {self.url!r} {url_fault}"),
        ]
        check("Weights", faults)

    @property
    def place(self) -> str:
        """Where they are published, for people."""
        if self.repo:
            return f"{self.repo}{'@' + self.revision[:12] if self.revision else ''} on the Hub, {self.file}"
        return self.url or f"{self.file}{' of the package ' + self.package if self.package else ''}"


def _url_fault(url: str) -> str:
    """Return why a URL cannot be fetched, or an empty string."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"is no URL: {error}"
    if parts.scheme not in ("https", "http") or not host or not url.isprintable() or " " in url:
        return "is no URL of the form https://HOST/PATH"
    return ""
