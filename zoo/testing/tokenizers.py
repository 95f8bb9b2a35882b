"""Checks of a text backbone's tokenizer; it is opened from files on disk or in a cache, and no check runs where they are not there."""

from __future__ import annotations

import itertools
import json
import logging
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.data.texts.tokenizers import Tokenizer, open_tokenizer
from zoo.declare import Text
from zoo.errors import ZooError, examples
from zoo.plugins.loader import load_function
from zoo.testing.subject import Subject
from zoo.util.subprocess_python import environment, python

log = logging.getLogger("zoo")

LENGTH = 12  # tokens
TEXTS: list[Any] = ["one short text", "Grüße, naïve café: 東京 №5?!", "a text of many words " * 8, ("a question", "and its answer")]
SENTENCES = [["one", "word"], ["Grüße", ",", "café", "東京"], ["many", "words"] * 20]
_ENCODE = """
import json, sys
from pathlib import Path
from zoo.plugins.loader import load_function
given = json.loads(sys.argv[1])
tokenizer = load_function(given["function"])(given["files"])
texts = [tuple(text) if isinstance(text, list) else text for text in given["texts"]]
both = tokenizer.encode(texts, given["length"]), tokenizer.encode_words(given["sentences"], given["length"])
Path(sys.argv[2]).write_text(json.dumps(both))
"""


def tokenizer_encodes_as_agreed(subject: Subject) -> None:
    """Encodings have the inputs that are padded, no more than the maximum, and for words the word of each token."""
    if (tokenizer := _opened(subject)) is None:
        return
    names = sorted(tokenizer.padding)
    assert {"input_ids", "attention_mask"} <= set(names), (
        f"padding has {', '.join(names) or 'nothing'}; it needs input_ids and attention_mask"
    )
    encodings = tokenizer.encode(TEXTS, LENGTH)
    assert len(encodings) == len(TEXTS), f"encode() returns {len(encodings)} encodings of {len(TEXTS)} texts"
    told = tokenizer.encode_words(SENTENCES, LENGTH)
    assert len(told) == len(SENTENCES), f"encode_words() returns {len(told)} encodings of {len(SENTENCES)} sentences"
    for encoding in (*encodings, *(encoding for encoding, _ in told)):
        assert sorted(encoding) == names, f"an encoding has {examples(sorted(encoding))}; padding has {examples(names)}"
        lengths = {len(values) for values in encoding.values()}
        assert len(lengths) == 1, f"the inputs of one text have {examples(sorted(lengths))} tokens; all must have as many"
        assert max(lengths) <= LENGTH, f"a text has {max(lengths)} tokens where {LENGTH} are the maximum"
    alone = [tokenizer.encode([text], LENGTH)[0] for text in TEXTS]
    assert alone == list(encodings), "a text has other tokens among others than alone"
    for sentence, (encoding, words) in zip(SENTENCES, told, strict=True):
        assert len(words) == len(encoding["input_ids"]), f"encode_words() gives {len(words)} words for {len(encoding['input_ids'])} tokens"
        found = [word for word, _ in itertools.groupby(words) if word is not None]
        assert found == sorted(set(found)), f"the words of the tokens are {words}; they must rise"
        assert set(found) <= set(range(len(sentence))), f"a token is of word {max(found)}, and the sentence has {len(sentence)}"


def tokens_are_the_same_in_every_process(subject: Subject) -> None:
    """A process with another hash seed encodes alike; else a saved model predicts something else tomorrow."""
    if (tokenizer := _opened(subject)) is None:
        return
    inputs = subject.backbone.spec.inputs
    assert isinstance(inputs, Text), "only texts have a tokenizer"
    given = {"function": inputs.tokenizer, "files": inputs.files, "texts": TEXTS, "sentences": SENTENCES, "length": LENGTH}
    here = json.loads(json.dumps((tokenizer.encode(TEXTS, LENGTH), tokenizer.encode_words(SENTENCES, LENGTH))))
    there = _in_process(given, "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1")
    assert here == there, "tokens differ between processes; Python's hash() of a text does: take zlib.crc32 or a vocabulary"


def tokenizer_returns_after_saving(subject: Subject) -> None:
    """A tokenizer that is saved and opened again encodes as before."""
    if (tokenizer := _opened(subject)) is None:
        return
    inputs = subject.backbone.spec.inputs
    assert isinstance(inputs, Text), "only texts have a tokenizer"
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder), inputs.max_length)
        again: Tokenizer = load_function(inputs.tokenizer)(folder)
        assert list(again.encode(TEXTS, LENGTH)) == list(tokenizer.encode(TEXTS, LENGTH)), (
            "texts have other tokens after saving and opening"
        )
        words = tokenizer.encode_words(SENTENCES, LENGTH)
        assert list(again.encode_words(SENTENCES, LENGTH)) == list(words), "words have other tokens after saving and opening"


def _opened(subject: Subject) -> Tokenizer | None:
    """Return the tokenizer; None where none is declared, or its files are neither in a local folder nor in a cache."""
    inputs = subject.backbone.spec.inputs
    if not isinstance(inputs, Text) or not inputs.tokenizer:
        return None
    load_function(inputs.tokenizer)
    try:
        return open_tokenizer(inputs)
    except ZooError as error:
        if inputs.files and Path(inputs.files).is_dir():
            raise
        log.warning("%s: its tokenizer is not checked, as it cannot be opened here: %s", subject.name, error)
        return None


def _in_process(given: Any, seed: str) -> Sequence[Any]:
    """Return the encodings of a new process with this hash seed."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "encodings.json"
        command = [*python(_ENCODE), json.dumps(given), str(told)]
        done = subprocess.run(command, env=environment() | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=False)
        assert not done.returncode, f"a new process cannot encode: {done.stderr.strip()[-300:]}"
        found: Sequence[Any] = json.loads(told.read_text())
        return found
