"""Tokenizers encode as transformers does; nothing that a repository holds is executed or asked about."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import VOCABULARY
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer
from zoo_hf.tokenizer import open_canonical_tokenizer, open_tokenizer

import zoo
from tests.warm_process import run_warm

TEXTS = ["a very good film", "The plots is badly", ""]


def test_texts_are_encoded_as_transformers_does(folder: Callable[..., Path]) -> None:
    path = folder("bert", tokenizer=True)
    told, home = open_tokenizer(str(path)), AutoTokenizer.from_pretrained(path)
    expected = home(TEXTS, truncation=True, max_length=5)
    encodings = told.encode(TEXTS, 5)
    assert {name: [encoding[name] for encoding in encodings] for name in told.padding} == dict(expected)
    assert told.padding == {"input_ids": 0, "attention_mask": 0, "token_type_ids": 0}


def test_pairs_of_texts_are_told_apart(folder: Callable[..., Path]) -> None:
    (pair,) = open_tokenizer(str(folder("bert", tokenizer=True))).encode([("good film", "bad plot")], 20)
    assert [VOCABULARY[token] for token in pair["input_ids"]] == ["[CLS]", "good", "film", "[SEP]", "bad", "plot", "[SEP]"]
    assert pair["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]


def test_windows_are_those_of_transformers_and_overlap(folder: Callable[..., Path]) -> None:
    path = folder("bert", tokenizer=True)
    told, home = open_tokenizer(str(path)), AutoTokenizer.from_pretrained(path)
    text = "good film is the bad plot a very good film is the plot"
    found = told.encode_windows(text, 8, 2)
    inner = [one["input_ids"][1:-1] for one in found]
    (whole,) = told.encode([text], 100)
    assert [one for part in inner for one in part[0 if part is inner[0] else 2 :]] == whole["input_ids"][1:-1]
    assert all(part[-2:] == following[:2] for part, following in itertools.pairwise(inner))
    assert {len(one["attention_mask"]) for one in found[:-1]} == {8}
    pairs = told.encode_windows(("good film", text), 12, 2)
    assert all(one["input_ids"][:4] == home("good film")["input_ids"] for one in pairs)
    assert all(len(one["input_ids"]) <= 12 for one in pairs)
    with pytest.raises(zoo.ZooError, match="both texts of the pair that begins with 'good film is"):
        told.encode_windows((text, text), 12, 2)


def test_pairs_of_long_texts_are_cut_as_transformers_does_in_no_time(folder: Callable[..., Path]) -> None:
    path = folder("bert", tokenizer=True)
    told, home = open_tokenizer(str(path)), AutoTokenizer.from_pretrained(path)
    words = ["good", "film", "is", "the", "bad", "plots"]
    texts = [
        " ".join(words[(start + step * place) % 6] for place in range(size))
        for size in (3, 70, 71, 140)
        for start, step in ((0, 1), (2, 5))
    ]
    for pair in itertools.product(texts, texts):
        for length in (9, 12):
            (found,) = told.encode([pair], length)
            assert found == dict(home(*pair, truncation=True, max_length=length)), (pair, length)
    long = " ".join(words * 1700)
    before = time.process_time()
    told.encode([(long, long)], 16)
    assert time.process_time() - before < 5, "every combination of the cut parts takes minutes"


def test_of_a_pair_the_text_with_more_tokens_is_divided(folder: Callable[..., Path]) -> None:
    tokenizer = open_tokenizer(str(folder("bert", tokenizer=True)))
    few, many = "good " + "x" * 90, "bad film " * 9  # an unknown word is one token, whatever its length
    for pair in ((few, many), (many, few)):
        found = tokenizer.encode_windows(pair, 12, 2)
        assert len(found) > 1
        assert all(len(one["input_ids"]) <= 12 for one in found)
        assert all(one["input_ids"].count(VOCABULARY.index("[UNK]")) == 1 for one in found)


def test_long_texts_are_counted_and_read_in_windows(folder: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    model = zoo.get(folder("bert", tokenizer=True), weights=False).adapt(2)  # of 40 positions
    text = "good film " * 30
    model.predict([text, "bad plot"])
    assert "1 text of 2 cut to 40 tokens, which loses 35% of their tokens" in caplog.text  # 22 of 62
    assert model.predict_proba([text, (text, "bad"), "bad plot"], overflow="windows").shape == (3, 2)


def test_the_word_of_each_token_is_told(folder: Callable[..., Path]) -> None:
    ((encoding, words),) = open_tokenizer(str(folder("bert", tokenizer=True))).encode_words([["good", "plots", "film"]], 20)
    assert [VOCABULARY[token] for token in encoding["input_ids"]] == ["[CLS]", "good", "plot", "##s", "film", "[SEP]"]
    assert words == [None, 0, 1, 1, 2, None]


def test_a_saved_tokenizer_opens_without_a_configuration_beside_it(folder: Callable[..., Path], tmp_path: Path) -> None:
    told = open_tokenizer(str(folder("bert", tokenizer=True)))
    (tmp_path / "alone").mkdir()
    told.save(tmp_path / "alone", 9)
    assert open_tokenizer(str(tmp_path / "alone")).encode(TEXTS, 9) == told.encode(TEXTS, 9)
    assert str(tmp_path) not in (tmp_path / "alone" / "tokenizer_config.json").read_text()


def test_a_folder_without_a_vocabulary_is_refused(folder: Callable[..., Path]) -> None:
    with pytest.raises(zoo.ZooError, match=r"vocab\.txt"):
        open_tokenizer(str(folder("bert")))
    with pytest.raises(zoo.ZooError, match="names no files"):
        open_tokenizer("")


ATTACK = """
import builtins, io, json, pathlib, sys
import zoo
from zoo.data.texts.tokenizers import open_tokenizer

asked = []
builtins.input = lambda *text: asked.append(text) or "yes"
told = {}
for path in map(pathlib.Path, sys.argv[1:]):
    try:
        backbone = zoo.get(path)
        backbone.build()
        if backbone.spec.modality == "text":
            open_tokenizer(backbone.spec.inputs).encode(["good film"], 9)
        model = backbone.adapt(2).eval()
        model.save(path / "saved")
        loaded = zoo.load(path / "saved")
        loaded.predict(["good film"]) if backbone.spec.modality == "text" else None
        told[path.name] = "ok"
    except zoo.ZooError as error:
        told[path.name] = f"refused: {error}"
print(json.dumps({"told": told, "asked": len(asked)}))
"""
AUTO = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"]}
VARIANTS: dict[str, tuple[dict[str, object], dict[str, object], dict[str, object]]] = {
    "auto_map": ({"auto_map": AUTO}, {}, {}),
    "remote_repository": ({"auto_map": {"AutoConfig": "owner/repo--evil.Config", "AutoModel": "owner/repo--evil.Model"}}, {}, {}),
    "trusted_by_itself": (
        {"auto_map": AUTO, "trust_remote_code": True},
        {"auto_map": AUTO["AutoTokenizer"], "trust_remote_code": True},
        {},
    ),
    "nested": ({"text_config": {"model_type": "bert", "auto_map": AUTO}}, {}, {}),
    "attention": (
        {"_attn_implementation_internal": "owner/kernels", "_attn_implementation": "owner/kernels", "attn_implementation": "x/y"},
        {},
        {},
    ),
    "tokenizer": ({}, {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"]}, "tokenizer_class": "EvilTokenizer"}, {}),
    "tokenizer_list": ({}, {"auto_map": ["evil.Tokenizer", "evil.Tokenizer"]}, {}),
    "processor": ({"auto_map": AUTO}, {}, {"auto_map": {"AutoImageProcessor": "evil.Processor"}, "image_processor_type": "evil.Processor"}),
}


def test_no_code_of_a_repository_runs_and_nothing_is_asked(folder: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import AutoModel

    marker = tmp_path / "executed"
    paths = []
    for name, (config, tokenizer, processor) in VARIANTS.items():
        path = folder("bert", auto=AutoModel, tokenizer=True).rename(tmp_path / name)
        (path / "evil.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).write_text('x')\nclass Model: pass\n")
        for file, more in (("config.json", config), ("tokenizer_config.json", tokenizer), ("preprocessor_config.json", processor)):
            told = json.loads((path / file).read_text()) if (path / file).exists() else {}
            (path / file).write_text(json.dumps({**told, **more}))
        paths.append(path)
    done = run_warm(ATTACK, [*map(str, paths)], env={**os.environ, "HF_HUB_OFFLINE": "1"}, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["asked"] == 0
    assert not marker.exists()
    # A tokenizer whose class is in the repository cannot be opened, and that is said; all else is ignored.
    refused = {name: story for name, story in result["told"].items() if story != "ok"}
    assert refused.keys() == {"tokenizer"}
    assert "cannot open its tokenizer" in refused["tokenizer"]
    assert "remote code" not in done.stderr


def test_a_saved_model_names_no_function_to_open_its_tokenizer(folder: Callable[..., Path], tmp_path: Path) -> None:
    path = zoo.get(folder("bert", tokenizer=True), weights=False).adapt(2).save(tmp_path / "saved")
    config = json.loads((path / "config.json").read_text())
    assert config["zoo"]["inputs"] == {"max_length": 40}
    config["zoo"]["inputs"] |= {"tokenizer": "os:system", "files": "touch executed"}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(zoo.ZooError, match="files, tokenizer"):
        zoo.load(path)
    config["zoo"]["inputs"] = {"max_length": 40}
    (path / "config.json").write_text(json.dumps(config))
    inputs = zoo.load(path).spec.inputs
    assert inputs == zoo.Text(max_length=40, tokenizer="zoo_hf.tokenizer:open_tokenizer", files=str(path.resolve()))


CORPUS = ["a very good film with wonderful plots", "the bad plot is badly told", "hello world"] * 20


@pytest.fixture(scope="module")
def unigram(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small model of sentencepiece."""
    import sentencepiece

    folder = tmp_path_factory.mktemp("unigram")
    (folder / "corpus.txt").write_text("\n".join(CORPUS))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "corpus.txt"),
        model_prefix=str(folder / "spiece"),
        vocab_size=50,
        hard_vocab_limit=False,
        pad_id=0,
        unk_id=1,
        bos_id=2,
        eos_id=3,
        user_defined_symbols="[CLS],[SEP],[MASK]",
        minloglevel=2,
    )
    return (folder / "spiece.model").read_bytes()


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("albert", "spiece.model"),
        ("camembert", "sentencepiece.bpe.model"),
        ("deberta-v2", "spm.model"),
        ("xlm-roberta", "sentencepiece.bpe.model"),
    ],
)
def test_models_of_sentencepiece_encode_as_transformers_does(kind: str, file: str, unigram: bytes, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(unigram)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    told, home = open_tokenizer(str(tmp_path)), AutoTokenizer.from_pretrained(tmp_path)
    assert [encoding["input_ids"] for encoding in told.encode(TEXTS, 20)] == home(TEXTS)["input_ids"]
    assert told.padding["input_ids"] == home.pad_token_id
    ((_, words),) = told.encode_words([["good", "plots"]], 20)
    assert sorted({word for word in words if word is not None}) == [0, 1]
    (tmp_path / "saved").mkdir()
    told.save(tmp_path / "saved", 9)
    assert open_tokenizer(str(tmp_path / "saved")).encode(TEXTS, 20) == told.encode(TEXTS, 20)


@pytest.mark.parametrize("missing", [["sentencepiece"], ["google.protobuf"], ["sentencepiece", "google.protobuf"]])
@pytest.mark.parametrize(
    ("kind", "file"), [("xlm-roberta-xl", "sentencepiece.bpe.model"), ("albert", "spiece.model"), ("t5", "spiece.model")]
)
def test_a_vocabulary_whose_reader_is_not_installed_names_the_package(
    kind: str, file: str, missing: list[str], unigram: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / file).write_bytes(unigram)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    for module in missing:
        monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    packages = [module.removeprefix("google.") for module in missing]
    words = (
        rf"{file} of sentencepiece, and needs the packages? {' and '.join(packages)}: pip install {' '.join(packages)}\. A tokenizer\.json"
    )
    with pytest.raises(zoo.ZooError, match=words):
        open_tokenizer(str(tmp_path))


def test_the_package_that_a_family_splits_texts_by_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roformer"}))
    monkeypatch.setitem(sys.modules, "rjieba", None)
    with pytest.raises(zoo.ZooError, match="needs the package rjieba: pip install rjieba"):
        open_tokenizer(str(tmp_path))


def test_a_tokenizer_that_is_whole_needs_no_reader(folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_tokenizer(str(folder("bert", tokenizer=True))).save(tmp_path, 9)
    (tmp_path / "spiece.model").write_bytes(b"never read")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    assert open_tokenizer(str(tmp_path)).encode(TEXTS, 9)


def test_words_of_roberta_keep_the_space_before_them(tmp_path: Path) -> None:
    from tokenizers import ByteLevelBPETokenizer

    made = ByteLevelBPETokenizer()
    made.train_from_iterator(CORPUS, vocab_size=300, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"], show_progress=False)
    made.save_model(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta"}))
    told = open_tokenizer(str(tmp_path))
    ((words, owners),) = told.encode_words([["good", "plots"]], 20)
    (text,) = told.encode([" good plots"], 20)
    assert words == text
    assert (owners[0], owners[-1], told.padding) == (None, None, {"input_ids": 1, "attention_mask": 0})


def test_segments_that_an_architecture_does_not_read_are_left_out(folder: Callable[..., Path]) -> None:
    path = folder("distilbert", tokenizer=True)
    model = zoo.get(path, weights=False).adapt(2)
    assert "token_type_ids" in open_tokenizer(str(path)).padding
    assert len(model.predict_proba([("a good film", "a bad plot")])) == 1


def test_texts_fill_all_positions_and_no_more(folder: Callable[..., Path]) -> None:
    for kind in ("bert", "roberta"):
        path = folder(kind, tokenizer=True, max_position_embeddings=37)
        assert zoo.get(path, weights=False).adapt(2).predict_proba(["good film " * 50]).shape == (1, 2)


def test_a_tokenizer_without_fast_form_reads_texts_and_refuses_words(tmp_path: Path) -> None:
    letters = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>"]
    (tmp_path / "vocab.txt").write_text("\n".join(letters) + "\n")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "esm"}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "EsmTokenizer"}))
    tokenizer = open_tokenizer(str(tmp_path))
    assert tokenizer.padding == {"input_ids": 1, "attention_mask": 0}
    assert [one["input_ids"] for one in tokenizer.encode(["LAGV", "AAAAA"], 6)] == [[0, 4, 5, 6, 7, 2], [0, 5, 5, 5, 5, 2]]
    with pytest.raises(zoo.ZooError, match="EsmTokenizer"):
        tokenizer.encode_words([["LAG"]], 6)
    with pytest.raises(zoo.ZooError, match="EsmTokenizer has no fast form, which texts without punctuation need"):
        tokenizer.canonicalize()


def test_a_canonical_tokenizer_reads_no_punctuation_and_no_capitals_also_where_its_library_forgets(tmp_path: Path) -> None:
    pieces = ["<pad>", "</s>", "<unk>", "\u2581", "\u2581bad", "\u2581Bad", "!", "\u2581very"]
    whole = Tokenizer(models.Unigram([(piece, -float(index)) for index, piece in enumerate(pieces)], unk_id=2))
    whole.pre_tokenizer = pre_tokenizers.Metaspace()
    whole.save(str(tmp_path / "tokenizer.json"))
    settings = {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>", "extra_ids": 0}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    told = open_canonical_tokenizer(str(tmp_path))
    assert [one["input_ids"] for one in told.encode(["Bad, very_bad!", "?!"], 12)] == [[4, 7, 4, 1], [1]]
    told.save(tmp_path / "saved", 12)
    assert open_tokenizer(str(tmp_path / "saved")).encode(["Bad!"], 12) != told.encode(["Bad!"], 12)
    again = open_canonical_tokenizer(str(tmp_path / "saved"))
    assert again.encode(["Bad, very_bad!"], 12) == told.encode(["Bad, very_bad!"], 12)
