"""Tokenizers of transformers: only their data files are opened, and no code of a repository is ever run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import zoo
from zoo_hf.describe import cleaned
from zoo_hf.source import Folder, Repository, Source, read_table

Encoding: TypeAlias = "dict[str, list[int]]"
Texts: TypeAlias = "Sequence[str | tuple[str, str]]"

SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "spiece.model", "spm.model", "sentencepiece.bpe.model")
# Vocabularies that open faster and exactly as published; the others are not fetched where this one is there.
WHOLE = "tokenizer.json"
# Packages that read a vocabulary of sentencepiece: their modules, and their names.
READERS = {"sentencepiece": "sentencepiece", "google.protobuf": "protobuf"}
OTHER_READERS = ("tiktoken", "rjieba", "sacremoses")  # that some families of transformers ask for by name
PUNCTUATION = r"[!-/:-@\[-`{-~]"  # Python's string.punctuation
MARGIN = 16  # tokens behind those that are kept, so that the end of a beginning does not change them
PADDING = {"input_ids": "pad_token_id", "token_type_ids": "pad_token_type_id"}


class Tokenizer:
    """A tokenizer of transformers in the form that zoo uses.

    Attributes:
        padding: Padding value of each input, by its name.
        mask_token: The token that hides another one, or None.
        special_tokens: Tokens that stand for no text.
        separator: The token that ends a text of BERT's kind, or None.
    """

    def __init__(self, home: Any) -> None:
        self._home = home
        if home.pad_token is None and home.eos_token is not None:
            home.pad_token = home.eos_token  # language models often have none; the mask hides it
        # To these a word with a space before it, as inside a text, is another token than without.
        self._space = " " if home.is_fast and _takes_spaces(json.loads(home.backend_tokenizer.to_str())["pre_tokenizer"]) else ""
        self.mask_token, self.special_tokens = home.mask_token_id, tuple(home.all_special_ids)
        self.separator = home.sep_token_id
        names = ["input_ids", "attention_mask", *(name for name in home.model_input_names if name == "token_type_ids")]
        self.padding = {name: int(getattr(home, PADDING[name], None) or 0) if name in PADDING else 0 for name in names}

    def canonicalize(self) -> None:
        """Take punctuation and upper case out of all texts from now on, in place; ``save`` keeps that where the library does.

        Raises:
            zoo.ZooError: If the tokenizer has no fast form.
        """
        if not self._home.is_fast:
            raise zoo.ZooError(f"the tokenizer {type(self._home).__name__} has no fast form, which texts without punctuation need")
        from tokenizers import Regex, normalizers

        backend = self._home.backend_tokenizer
        steps: list[Any] = [normalizers.Replace("_", " "), normalizers.Replace(Regex(PUNCTUATION), ""), normalizers.Lowercase()]
        steps += [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
        clean = normalizers.Sequence(steps)
        told = json.loads(backend.to_str())["normalizer"]
        if told is None:
            backend.normalizer = clean
        elif not str(backend.normalizer).startswith(str(clean).rstrip("])")):
            backend.normalizer = normalizers.Sequence([*steps, backend.normalizer])

    def encode(self, texts: Texts, max_length: int) -> list[Encoding]:
        """Return the inputs of each text or pair of texts: cut to ``max_length`` tokens, special ones added, not padded."""
        beginnings = [text if isinstance(text, str) else self._beginnings(text, max_length + MARGIN) for text in texts]
        told = self._call(beginnings, max_length=max_length)
        return [{name: told[name][row] for name in self.padding} for row in range(len(texts))]

    def encode_words(self, sentences: Sequence[Sequence[str]], max_length: int) -> list[tuple[Encoding, list[int | None]]]:
        """Return the same for sentences given as words, and for each token the index of its word, None for special ones.

        Raises:
            zoo.ZooError: If the tokenizer does not tell the words, as ESM's of proteins.
        """
        if not self._home.is_fast:
            name = type(self._home).__name__
            raise zoo.ZooError(
                f"the tokenizer {name} does not tell which word a token belongs to: it has no fast form; classify whole texts"
            )
        told = self._call([[self._space + word for word in words] for words in sentences], max_length=max_length, is_split_into_words=True)
        return [({name: told[name][row] for name in self.padding}, told.word_ids(row)) for row in range(len(sentences))]

    def encode_windows(self, text: str | tuple[str, str], max_length: int, overlap: int) -> list[Encoding]:
        """Return the inputs of each window of a text; of a pair the text with more tokens is divided, and the other is in every window.

        Raises:
            zoo.ZooError: If both texts of a pair are too long.
        """
        truncation: bool | str = True
        if not isinstance(text, str):
            first, second = map(self._size, text)
            if min(first, second) + self._home.num_special_tokens_to_add(pair=True) + overlap >= max_length:
                raise zoo.ZooError(
                    f"both texts of the pair that begins with {text[0][:40]!r} are too long for windows of {max_length} tokens"
                )
            truncation = "only_first" if first >= second else "only_second"
        texts = [[text]] if isinstance(text, str) else [[one] for one in text]
        encoded = self._call(*texts, max_length=max_length, truncation=truncation, stride=overlap, return_overflowing_tokens=True)
        return [{name: encoded[name][row] for name in self.padding} for row in range(len(encoded["input_ids"]))]

    def _beginnings(self, pair: tuple[str, str], tokens: int) -> tuple[str, str]:
        """Return the beginnings of two texts that both have more than so many tokens, the same one the longer; another pair as it is.

        Of two long texts the library would build every combination of their cut parts: a minute for 10,000 words each.
        """
        first, second = pair
        if min(map(len, pair)) <= tokens or min(sizes := [*map(self._size, pair)]) <= tokens:
            return pair
        if sizes[0] <= sizes[1]:
            first = self._beginning(first, tokens)
            return first, self._beginning(second, self._size(first) - 1)
        second = self._beginning(second, tokens)
        return self._beginning(first, self._size(second)), second

    def _beginning(self, text: str, tokens: int) -> str:
        """Return a beginning of a text with more than so many tokens, up to a space."""
        size = 4 * tokens
        while len(text) > size:
            part = text[: size if (space := text.rfind(" ", 0, size)) < 1 else space]
            if self._size(part) > tokens:
                return part
            size *= 2
        return text

    def _size(self, text: str) -> int:
        return len(self._home(text, add_special_tokens=False, verbose=False)["input_ids"])

    def save(self, folder: Path, max_length: int) -> None:
        """Write the tokenizer's files into a folder, from where ``AutoTokenizer`` opens them and cuts at ``max_length``."""
        before, self._home.model_max_length = self._home.model_max_length, max_length
        try:
            self._home.save_pretrained(folder)
        finally:
            self._home.model_max_length = before

    def _call(self, *texts: Any, **options: Any) -> Any:
        return self._home(
            *texts,
            add_special_tokens=True,
            padding=False,
            return_attention_mask=True,
            return_token_type_ids="token_type_ids" in self.padding,
            verbose=False,
            **{"truncation": True, **options},
        )


def _takes_spaces(told: Any) -> bool:
    """Tell whether a tokenizer reads spaces as part of words and adds none itself, from the description of how it splits."""
    if not isinstance(told, dict):
        return False
    steps = told.get("pretokenizers") or [told]
    return any(step.get("type") == "ByteLevel" and not step.get("add_prefix_space") for step in steps)


def open_tokenizer(files: str) -> Tokenizer:
    """Open a tokenizer.

    Args:
        files: A local folder, or ``owner/repository`` on the Hub, with ``@revision`` if wanted.

    Raises:
        zoo.ZooError: If there is no vocabulary, or it cannot be opened without running code of the repository.
    """
    if not files:
        raise zoo.ZooError("this backbone names no files of a tokenizer; give the path of a folder that holds them beside its config.json")
    with tempfile.TemporaryDirectory() as folder:
        _gather(located(files), Path(folder))
        return Tokenizer(_open(Path(folder), files))


def open_canonical_tokenizer(files: str) -> Tokenizer:
    """Open a tokenizer that reads texts in lower case and without punctuation, as those of SigLIP (Zhai et al. 2023, big_vision).

    Args:
        files: As for ``open_tokenizer``.

    Raises:
        zoo.ZooError: As ``open_tokenizer``, and for a tokenizer without a fast form.
    """
    tokenizer = open_tokenizer(files)
    tokenizer.canonicalize()
    return tokenizer


def located(files: str) -> Source:
    """Return the folder or repository of a tokenizer's files."""
    repo, _, revision = files.partition("@")
    return Folder(Path(files)) if Path(files).is_absolute() or Path(files).is_dir() else Repository(repo, revision)


def _gather(source: Source, folder: Path) -> None:
    """Copy the tokenizer's data files, and what of the settings names no code, into a folder where nothing else lies."""
    found = []
    for name in VOCABULARIES:
        path = source.find(name)
        if path is not None:
            (folder / name).write_bytes(path.read_bytes())
            found.append(name)
        if found == [WHOLE]:
            break
    if not found:
        raise zoo.ZooError(f"{source.files}: there is no tokenizer's vocabulary; it has none of {', '.join(VOCABULARIES)}")
    for name in SETTINGS:
        settings = {key: value for key, value in read_table(source, name).items() if key != "auto_map"}
        if settings:
            (folder / name).write_text(json.dumps(settings), encoding="utf-8")
    config = cleaned(read_table(source, "config.json"))
    if "model_type" in config:
        (folder / "config.json").write_text(json.dumps({"model_type": config["model_type"]}), encoding="utf-8")


def _open(folder: Path, files: str) -> Any:
    from transformers import AutoTokenizer

    _refuse_missing_readers(folder, files)
    try:
        home = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True, use_fast=True)
    except Exception as error:  # of many libraries, and different ones for each kind of vocabulary
        text = " ".join(str(error).split())
        # transformers speaks of tiktoken in other errors too, such as of an unknown class.
        needed = _missing(name for name in OTHER_READERS if name in text) if isinstance(error, ImportError) else []
        if needed:
            raise zoo.ZooError(f"{files}: its tokenizer needs {_install(needed)}") from error
        raise zoo.ZooError(f"{files}: transformers cannot open its tokenizer: {text}") from error
    home.name_or_path = files
    home.init_kwargs.pop("name_or_path", None)
    return home


def _refuse_missing_readers(folder: Path, files: str) -> None:
    """Check that the packages are there that read the vocabulary.

    Raises:
        zoo.ZooError: Naming them, and the file that is read without them.
    """
    names = [path.name for path in sorted(folder.glob("*.model"))]
    missing = [READERS[module] for module in _missing(READERS)]
    if names and missing and not (folder / WHOLE).exists():
        raise zoo.ZooError(f"{files}: its tokenizer is {', '.join(names)} of sentencepiece, and needs {_install(missing)}")


def _install(packages: Sequence[str]) -> str:
    plural = "packages" if len(packages) > 1 else "package"
    names = " ".join(packages)
    return f"the {plural} {' and '.join(packages)}: pip install {names}. A {WHOLE} beside it, which needs none, would do as well"


def _missing(modules: Iterable[str]) -> list[str]:
    """Return the modules that are not installed, without importing them."""
    return [name for name in modules if not _is_installed(name)]


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):  # of the package that a module is in
        return False
