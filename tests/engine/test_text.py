"""Texts through the engine: padding, order by length, pairs, words, saved and loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from tests.engine.tiny import SAVED, count_samples, difference, timeless, values
from tests.toy_text import ToyTextPlugin
from zoo.engine.loading.order import batches_by_length
from zoo.errors import DataError, OptionError
from zoo.models.task_model import TaskModel
from zoo.registry.registry import Registry, use_registry

WORDS = ("sun", "rain", "cloud", "wind", "snow", "storm", "thunderstorms")


@pytest.fixture(autouse=True)
def texts() -> Iterator[None]:
    use_registry(Registry(plugins=[zoo.builtin, ToyTextPlugin()], files=[]))
    yield
    use_registry()


def sentences(count: int = 48, seed: int = 0) -> tuple[list[str], list[str]]:
    """Return sentences of 1 to 12 words whose class is the animal in them."""
    source = np.random.default_rng(seed)
    labels = [("cat", "dog")[index % 2] for index in range(count)]
    texts = []
    for label in labels:
        words = list(source.choice(WORDS, source.integers(1, 12)))
        texts.append(" ".join([*words, label]))
    return texts, labels


def tagged(count: int = 40, seed: int = 0) -> tuple[list[list[str]], list[list[str]]]:
    """Return sentences as words; animals of two words are entities."""
    source = np.random.default_rng(seed)
    told = []
    for _index in range(count):
        before, after = (list(source.choice(WORDS, source.integers(1, 5))) for _ in range(2))
        told.append(([*before, "grey", "wolf", *after], ["O"] * len(before) + ["B-Animal", "I-Animal"] + ["O"] * len(after)))
    return [words for words, _ in told], [tags for _, tags in told]


def model(task: str = "single-label", classes: int = 2, **options: Any) -> TaskModel:
    return zoo.get(options.pop("name", "toy/text"), weights=False).adapt(classes, task=task, **options)


@pytest.mark.parametrize("options", [{}, {"pool": "token"}, {"pool": "max"}, {"name": "toy/pooled-text"}])
def test_padding_changes_no_logit(options: dict[str, Any]) -> None:
    net = model(**options).eval()
    short, long = "sun rain", " ".join(WORDS)
    alone = net.predict_proba([short])
    together = net.predict_proba([short, long])
    assert np.allclose(alone[0], together[0], atol=1e-6)
    assert not np.allclose(together[0], together[1], atol=1e-4)


def test_the_mean_is_over_all_tokens_that_are_no_padding() -> None:
    net = model().eval()
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    inputs = {"input_ids": torch.tensor([[1, 9, 2, 0, 0]]), "attention_mask": mask}
    with torch.no_grad():
        assert torch.allclose(net.embed_batch(inputs), net.backbone(inputs)[:, :3].mean(1), atol=1e-6)


@pytest.mark.parametrize("recipe", ["linear-probe", "full"])
def test_a_text_classifier_learns_and_returns(recipe: str, tmp_path: Path) -> None:
    net = model()
    net.fit(sentences(), sentences(seed=1), recipe=recipe, epochs=20, lr=0.02, out=tmp_path / "run", quiet=True, batch_size=8)
    probabilities = net.predict_proba(sentences(seed=2)[0])
    loaded = zoo.load(tmp_path / "run")
    assert np.array_equal(loaded.predict_proba(sentences(seed=2)[0]), probabilities)
    assert loaded.labels == ("cat", "dog")
    if recipe == "full":
        assert net.evaluate(sentences(seed=2))["accuracy"] > 0.9


def test_an_interrupted_text_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole, parts = model(), model()
    fit: dict[str, Any] = {"recipe": "full", "quiet": True, "batch_size": 8, "epochs": 2}
    once = whole.fit(sentences(), sentences(seed=1), out=tmp_path / "whole", **fit)
    again = parts.fit(sentences(), sentences(seed=1), out=tmp_path / "parts", **fit)
    assert difference(values(whole), values(parts)) == 0.0
    assert timeless(once.history) == timeless(again.history)


def test_batches_hold_texts_of_nearly_one_length_and_every_text_once() -> None:
    lengths = np.random.default_rng(0).integers(3, 100, 1000)
    order = np.random.default_rng(1).permutation(1000)
    batches = batches_by_length(order, 16, lengths, seed=0, epoch=3)
    assert sorted(index for batch in batches for index in batch) == list(range(1000))
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert padded < 1.05 * lengths.sum()
    assert batches == batches_by_length(order, 16, lengths, seed=0, epoch=3)
    firsts = [int(lengths[batch].max()) for batch in batches]
    assert firsts != sorted(firsts)


def test_predictions_come_in_the_order_of_the_inputs() -> None:
    net = model().eval()
    texts = sentences(30)[0]
    singly = np.concatenate([net.predict_proba([text]) for text in texts])
    assert np.allclose(net.predict_proba(texts, batch_size=7), singly, atol=1e-6)


def test_pairs_of_texts_are_read_from_arrays_and_tables(tmp_path: Path) -> None:
    texts, labels = sentences(12)
    pairs = [(text, "and then") for text in texts]
    file = tmp_path / "pairs.csv"
    file.write_text("sentence1,sentence2,label\n" + "".join(f"{a},{b},{label}\n" for (a, b), label in zip(pairs, labels, strict=True)))
    net = model().eval()
    assert np.array_equal(net.predict_proba(pairs), net.predict_proba(file))
    assert not np.array_equal(net.predict_proba(pairs), net.predict_proba(texts))


def test_words_are_classified_and_counted_as_entities(tmp_path: Path) -> None:
    net = model("token-classification", 3)
    run = net.fit(tagged(), tagged(seed=1), recipe="full", epochs=15, lr=0.02, batch_size=8, out=tmp_path / "run", quiet=True)
    assert run.metrics["f1"] > 0.9
    words = ["wind", "grey", "wolf", "thunderstorms"]
    assert net.predict([words]) == [["O", "B-Animal", "I-Animal", "O"]]
    assert net.predict(" ".join(words)) == net.predict([words])
    assert zoo.load(tmp_path / "run").predict([words]) == net.predict([words])
    assert net.predict_proba([words, words[:2]])[1].shape == (2, 3)


def test_words_beyond_the_maximum_are_outside_and_counted() -> None:
    net = model("token-classification", 3, labels=("B-Animal", "I-Animal", "O")).eval()
    words = ["grey"] * 40
    assert net.predict([words])[0][22:] == ["O"] * 18
    assert np.isnan(net.predict_proba([words])[0][22:]).all()
    assert net.evaluate(([words], [["B-Animal"] * 40]))["recall"] <= 22 / 40


def test_conll_files_are_read(tmp_path: Path) -> None:
    words, tags = tagged(4)
    file = tmp_path / "train.tsv"
    blocks = ["".join(f"{word}\t{tag}\n" for word, tag in zip(*pair, strict=True)) for pair in zip(words, tags, strict=True)]
    file.write_text("\n".join(blocks))
    net = model("token-classification", 3)
    assert net.evaluate(file) == net.evaluate((words, tags))


def test_faults_of_texts_are_named() -> None:
    net = model()
    with pytest.raises(DataError, match=r"row 1 \(int is no text\)"):
        net.predict(["fine", 7])
    with pytest.raises(OptionError, match="- mixup: meant"):
        net.fit(sentences(), sentences(seed=1), mixup=0.2)
    with pytest.raises(OptionError, match="on_corrupt, augment: meant for images"):
        net.fit(sentences(), sentences(seed=1), augment="strong", on_corrupt="skip")
    with pytest.raises(OptionError, match="image_size"):
        net.fit(sentences(), sentences(seed=1), image_size=32)
    with pytest.raises(DataError, match=r"row 0 \(2 words, 1 labels\)"):
        model("token-classification", 3).evaluate(([["a", "b"]], [["O"]]))
    with pytest.raises(OptionError, match="pooler"):
        zoo.get("zoo/glyphnet", weights=False).adapt(2, pool="pooler")


def test_the_backbones_own_pooling_is_turned_on_and_off() -> None:
    pooled, tokens = model(pool="pooler"), model(name="toy/pooled-text", pool="avg")
    assert pooled.groups.names[-1] == "pooler"
    assert "pooler" not in tokens.groups.names
    assert pooled.spec.features.layout == "BD"
    assert model("token-classification", name="toy/pooled-text").spec.features.layout == "BND"


def test_quotation_marks_in_a_tsv_are_text_unless_they_wrap_a_cell(tmp_path: Path) -> None:
    file = tmp_path / "train.tsv"
    file.write_text('text\tlabel\nsay "hi\tcat\n"he said ""no"""\tdog\n" alone\tcat\n')
    from zoo.data.open import open_data

    assert open_data(file, reads="text").inputs == ['say "hi', 'he said "no"', '" alone']


def test_the_maximum_length_is_cut_down_and_saved(tmp_path: Path) -> None:
    net = model()
    net.fit(sentences(), sentences(seed=1), recipe="linear-probe", epochs=1, max_length=8, out=tmp_path / "run", quiet=True)
    loaded = zoo.load(tmp_path / "run")
    assert np.array_equal(loaded.predict_proba(["sun " * 20]), loaded.predict_proba(["sun " * 6]))
    assert not np.array_equal(loaded.predict_proba(["sun " * 20]), loaded.predict_proba(["sun " * 5 + "rain"]))
    loaded.fit(sentences(), sentences(seed=1), recipe="linear-probe", epochs=1, max_length=24, out=tmp_path / "longer", quiet=True)
    with pytest.raises(OptionError, match="at most 24 tokens"):
        net.fit(sentences(), sentences(seed=1), max_length=25)


@pytest.mark.parametrize(
    ("task", "freeze"), [("single-label", "layer.0"), ("token-classification", "layer.0"), ("token-classification", "all")]
)
def test_the_frozen_part_of_a_text_model_runs_once(task: str, freeze: str, tmp_path: Path) -> None:
    train, valid = (tagged(), tagged(seed=1)) if task == "token-classification" else (sentences(), sentences(seed=1))
    runs = []
    for cache in (True, False):
        net = model(task, 3 if task == "token-classification" else 2, dropout=0.0)
        seen = count_samples(net.backbone.get_submodule("embeddings"))
        out = tmp_path / str(cache)
        run = net.fit(train, valid, recipe="full", freeze=freeze, epochs=3, cache=cache, batch_size=8, out=out, quiet=True)
        runs.append((run.history, seen[0] - SAVED))
    assert runs[0][1] <= len(train[0]) + len(valid[0]) + 5 * 4
    assert runs[1][1] == 3 * (len(train[0]) + len(valid[0]))
    for one, other in zip(runs[0][0], runs[1][0], strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], abs=1e-4)
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-4)


def test_texts_and_words_in_files_are_those_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    from zoo.engine.inference import output_blocks

    texts, words = sentences(11)[0], tagged(6)
    net, tagger = model(labels=("cat", "dog")), model("token-classification", 3, labels=("O", "B-Animal", "I-Animal"))
    expected, tags = net.predict_proba(texts), tagger.predict(words[0])
    monkeypatch.setattr(output_blocks, "ROWS", 4)
    net.predict_to_file(texts, tmp_path / "texts.parquet", batch_size=2)
    table = pq.read_table(tmp_path / "texts.parquet").to_pydict()
    assert table["input"] == texts
    assert np.allclose(np.stack([table["probability_cat"], table["probability_dog"]], 1), expected, atol=1e-6)
    tagger.predict_to_file(words[0], tmp_path / "words.parquet", batch_size=2)
    table = pq.read_table(tmp_path / "words.parquet").to_pydict()
    assert table["word"] == [word for sentence in words[0] for word in sentence]
    assert table["prediction"] == [tag for sentence in tags for tag in sentence]
    assert table["row"] == [row for row, sentence in enumerate(words[0]) for _ in sentence]
    found = tagger.evaluate(words)
    names, matrix = found.confusion()
    assert matrix.trace() / matrix.sum() == pytest.approx(found["accuracy"])
    assert len(found.mistakes()["word"]) == matrix.sum() - matrix.trace()
    assert names == ["O", "B-Animal", "I-Animal"]
