"""Files of Hub repositories, from the cache or the network; verified if their name in the cache is a digest."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, overload

from zoo.declare.digest_forms import is_commit, is_sha256
from zoo.errors import DiskFullError, WeightsError, WeightsNotFoundError, did_you_mean, examples, owner_prefix
from zoo.util.atomic_write import room_for
from zoo.weights.hub_cache import check_cached, is_repository, unsafe

if TYPE_CHECKING:
    import huggingface_hub

log = logging.getLogger("zoo")

_REMEDY = "check the names and the network (and HF_HUB_OFFLINE)"
_OFFLINE = "HF_HUB_OFFLINE forbids the network"
_CACHE_REMEDY = "the cache of the Hub cannot be used: set HF_HUB_CACHE to a folder that you may write to"
_LOGIN = "hf auth login, or HF_TOKEN"
_UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


class NotOnHubError(WeightsNotFoundError):
    """The Hub says that the repository has no such file or revision."""


class _NoFileError(NotOnHubError):
    """The revision exists, but not the file."""


class HubFileInfo(NamedTuple):
    """Metadata of a file on the Hub: its commit, its size in bytes, and its sha256 where it is a large file."""

    commit: str
    size: int
    sha256: str


class _HubFile(NamedTuple):
    """A file of a repository and a revision."""

    repo: str
    file: str
    revision: str
    owner: str

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}/{self.file}"

    @property
    def folder(self) -> Path:
        """The repository's folder in the cache."""
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE) / f"models--{self.repo.replace('/', '--')}"

    def at(self, commit: str) -> Path:
        """The path of the file in the snapshot of a commit."""
        return self.folder.joinpath("snapshots", commit, *self.file.split("/"))

    def cached_commit(self) -> str:
        """The commit of the revision according to the cache, or an empty string."""
        if is_commit(self.revision):
            return self.revision
        try:
            commit = self.folder.joinpath("refs", *self.revision.split("/")).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return ""
        return commit if is_commit(commit) else ""

    def cached(self) -> Path | None:
        """The file in the cache, or None."""
        commit = self.cached_commit()
        path = self.at(commit)
        return path if commit and (path.exists() or path.is_symlink()) else None

    def missing_marker(self, commit: str) -> Path:
        """The path of the client's marker that a commit does not have the file."""
        return self.folder.joinpath(".no_exist", commit, *self.file.split("/"))


@overload
def fetch(repo: str, file: str, revision: str = "", *, owner: str = "", missing_ok: Literal[False] = False) -> Path: ...
@overload
def fetch(repo: str, file: str, revision: str = "", *, owner: str = "", missing_ok: Literal[True]) -> Path | None: ...
def fetch(repo: str, file: str, revision: str = "", *, owner: str = "", missing_ok: bool = False) -> Path | None:
    """Return a file of a Hub repository, from the cache or the network.

    A commit that is in the cache needs no network. If the Hub cannot be reached, a branch means its last commit in the cache.

    Args:
        repo: Repository, ``owner/name``; never a local path.
        file: Path inside the repository, with forward slashes.
        revision: Commit, tag or branch; empty means ``main``.
        owner: Name of the backbone, for messages.
        missing_ok: Return None if the Hub says, or said when it was last asked, that there is no such file.

    Raises:
        WeightsNotFoundError: If the file is not in the cache and cannot be fetched.
        WeightsError: If a name is unsafe, or the cached file is damaged or lies outside the cache.
    """
    wanted = _hub_file(repo, file, revision, owner)
    try:
        path = _fetch(wanted)
    except _NoFileError:
        if missing_ok:
            return None
        raise
    return check_cached(wanted.folder, path, owner)


def find_cached(repo: str, file: str, revision: str = "", *, owner: str = "") -> Path | None:
    """Return a file of a Hub repository if it is in the cache, without network; else None.

    Raises:
        WeightsError: If a name is unsafe, or the cached file is damaged or lies outside the cache.
    """
    wanted = _hub_file(repo, file, revision, owner)
    path = wanted.cached()
    return path and check_cached(wanted.folder, path, owner)


def file_metadata(repo: str, file: str, revision: str = "", *, owner: str) -> HubFileInfo:
    """Return the metadata of a file on the Hub.

    Raises:
        WeightsNotFoundError: If the Hub cannot be asked, or has no such file.
        WeightsError: If a name is unsafe.
    """
    from huggingface_hub import constants

    wanted = _hub_file(repo, file, revision, owner)
    if constants.HF_HUB_OFFLINE:
        _fail(wanted, _OFFLINE)
    with _quiet():
        metadata = _metadata(wanted)
    if not metadata.commit_hash or not is_commit(metadata.commit_hash):
        _fail(wanted, "the Hub does not give its commit")
    return HubFileInfo(metadata.commit_hash, metadata.size or 0, metadata.etag if metadata.etag and is_sha256(metadata.etag) else "")


def _hub_file(repo: str, file: str, revision: str, owner: str) -> _HubFile:
    revision = revision or "main"
    faults = [f"{what} {name!r}: {unsafe(name)}" for what, name in (("file", file), ("revision", revision)) if unsafe(name)]
    faults += [f"repository {repo!r} is not of the form 'owner/name'"] * (not is_repository(repo))
    if faults:
        raise WeightsError(f"{owner_prefix(owner)}refused as names of the Hub: {'; '.join(faults)}")
    return _HubFile(repo, file, revision, owner)


def _fetch(wanted: _HubFile) -> Path:
    from huggingface_hub import constants

    cached = wanted.cached()
    if is_commit(wanted.revision) and (cached or wanted.missing_marker(wanted.revision).exists()):
        return cached or _fail(wanted, "the repository has no such file", kind=_NoFileError)
    if constants.HF_HUB_OFFLINE:
        return cached or _missing(wanted, _OFFLINE)
    with _quiet():
        return _fetch_online(wanted, cached)


def _fetch_online(wanted: _HubFile, cached: Path | None) -> Path:
    """Ask the Hub once, then download, because the client would retry for long without network."""
    import huggingface_hub

    try:
        metadata = _metadata(wanted)
        if metadata.commit_hash == wanted.cached_commit() and cached:
            return cached
        with room_for(wanted.folder, metadata.size or 0):
            return Path(huggingface_hub.hf_hub_download(wanted.repo, wanted.file, revision=wanted.revision, library_name="zoo"))
    except DiskFullError:
        raise
    except WeightsNotFoundError as error:
        if isinstance(error, NotOnHubError):
            raise
        if not cached:
            _missing(wanted, "", error)
        log.warning(
            "%sthe Hub cannot be asked about %s; using the cached commit %s", owner_prefix(wanted.owner), wanted, wanted.cached_commit()
        )
        return cached
    except Exception as error:  # see _metadata
        unusable = isinstance(error, OSError) and error.errno in _UNUSABLE
        _fail(wanted, _reason(error), error, remedy=_CACHE_REMEDY if unusable else _REMEDY)


def _metadata(wanted: _HubFile) -> huggingface_hub.HfFileMetadata:
    import huggingface_hub
    from huggingface_hub import constants, errors

    try:
        url = huggingface_hub.hf_hub_url(wanted.repo, wanted.file, revision=wanted.revision)
        return huggingface_hub.get_hf_file_metadata(url, library_name="zoo")
    except errors.GatedRepoError as error:
        terms = f"accept its terms at {constants.ENDPOINT}/{wanted.repo}, and log in"
        _fail(wanted, "the repository is gated", error, remedy=f"{terms}: {_LOGIN}")
    except errors.RepositoryNotFoundError as error:
        remedy = f"check its name; if it is private, log in: {_LOGIN}"
        _fail(wanted, "there is no such repository, or it is private", error, remedy=remedy)
    except errors.RevisionNotFoundError as error:
        _fail(wanted, "the repository has no such revision", error, NotOnHubError)
    except errors.EntryNotFoundError as error:
        _write_missing_marker(wanted, error)
        _fail(wanted, "the repository has no such file", error, _NoFileError)
    except Exception as error:  # the client raises errors of its HTTP library, which has changed more than once
        _fail(wanted, _reason(error), error, remedy=f"{_REMEDY}, or {_copy_remedy(wanted)}")


def _copy_remedy(wanted: _HubFile) -> str:
    """Return how a file of a machine with network comes into the cache of this one."""
    revision = "" if wanted.revision == "main" else f" --revision {wanted.revision}"
    command = f"zoo download {wanted.owner}" if wanted.owner else f"hf download {wanted.repo} {wanted.file}{revision}"
    folder = wanted.folder
    return f"on a machine with network run {command}, and copy the folder {folder.name} of its cache of the Hub to {str(folder)!r}"


def _write_missing_marker(wanted: _HubFile, error: Exception) -> None:
    """Write the client's marker that a commit does not have a file, for later calls without network."""
    commit = getattr(getattr(error, "response", None), "headers", {}).get("X-Repo-Commit", "")
    if is_commit(commit):
        with suppress(OSError):  # the cache cannot be written
            wanted.missing_marker(commit).parent.mkdir(parents=True, exist_ok=True)
            wanted.missing_marker(commit).touch()


def _missing(wanted: _HubFile, reason: str, cause: WeightsNotFoundError | None = None) -> NoReturn:
    """Raise the error for a file that is not in the cache while the Hub cannot be asked."""
    commit = wanted.cached_commit()
    if commit and wanted.missing_marker(commit).exists():
        _fail(wanted, "the repository had no such file when it was last asked", cause, _NoFileError)
    if cause:
        raise cause
    _fail(wanted, reason, remedy=_copy_remedy(wanted))


def _fail(
    wanted: _HubFile,
    reason: str,
    cause: Exception | None = None,
    kind: type[WeightsNotFoundError] = WeightsNotFoundError,
    *,
    remedy: str = _REMEDY,
) -> NoReturn:
    raise kind(
        f"{owner_prefix(wanted.owner)}cannot get {wanted} from the Hub and it is not in the cache ({reason}){_in_cache(wanted)}; "
        f"{remedy}; or give a local file"
    ) from cause


def _in_cache(wanted: _HubFile) -> str:
    """Return the commits of the repository in the cache, for the message."""
    commit = wanted.cached_commit()
    meant = f"; the cache knows {wanted.revision} as {commit[:12]}" if commit and commit != wanted.revision else ""
    snapshots = sorted(entry for entry in wanted.folder.glob("snapshots/*") if entry.is_dir())
    having = [entry.name[:12] for entry in snapshots if entry.joinpath(*wanted.file.split("/")).exists()]
    if having:
        return f"{meant}; the cache has this file at other commits: {examples(having)}"
    beside = [name.relative_to(entry).as_posix() for entry in snapshots if entry.name == commit for name in entry.rglob("*")]
    return meant + did_you_mean(wanted.file, beside)


def _reason(error: BaseException) -> str:
    lines = str(error.__cause__ or error).strip().splitlines()
    return f"{type(error.__cause__ or error).__name__}: {lines[0] if lines else 'no message'}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Limit the client's log to errors."""
    logger: Any = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def without_network() -> Iterator[None]:
    """Forbid the network for weights while the context is open, as HF_HUB_OFFLINE does."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
