"""The head for words is solved: it is as good as scikit-learn's, and its folds never divide a sentence."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import zoo
from tests.engine.tiny import SAVED, count_samples, difference, values
from tests.toy_text import ToyTextPlugin
from zoo.data.open import open_data
from zoo.data.splits.folds import folds_of
from zoo.data.texts.encode import TextWindow
from zoo.data.texts.token_ids import TextSamples, fit_lengths
from zoo.engine.cache.labelled_words import word_features, word_table
from zoo.engine.options.recipes import RECIPES, default_recipe
from zoo.engine.solved import solved_head
from zoo.errors import TrainingError
from zoo.registry.registry import Registry, use_registry

WORDS = ("sun", "rain", "thunderstorms", "wolf", "cloudless", "fox")
TAGS = ("B-Animal", "I-Animal", "O")
Sentences = tuple[list[list[str]], list[list[str]]]


@pytest.fixture(autouse=True)
def texts() -> Iterator[None]:
    use_registry(Registry(plugins=[zoo.builtin, ToyTextPlugin()], files=[]))
    yield
    use_registry()


def tagged(count: int = 40, seed: int = 0) -> Sentences:
    """Return sentences of which a third of the words has a tag of chance."""
    source = np.random.default_rng(seed)
    usual = dict(zip(WORDS, ("O", "O", "O", "B-Animal", "O", "I-Animal"), strict=True))
    words = [list(map(str, source.choice(WORDS, source.integers(2, 8)))) for _ in range(count)]
    return words, [[usual[word] if source.random() > 0.3 else str(source.choice(TAGS)) for word in sentence] for sentence in words]


def model(seed: int = 0, **options: Any) -> Any:
    return zoo.get("toy/text", weights=False).adapt(3, task="token-classification", labels=TAGS, seed=seed, **options)


def fit(net: Any, out: Path, train: Any = None, valid: Any = False, **options: Any) -> Any:
    return net.fit(train or tagged(), valid, out=out, **({"recipe": "linear-probe", "quiet": True, "batch_size": 8} | options))


def features(net: Any, sentences: list[list[str]]) -> Any:
    """Return the features of the first token of each word, of one sentence after the other."""
    found = []
    tokenizer = zoo.data.texts.tokenizers.open_tokenizer(net.inputs)
    for encoding, words in tokenizer.encode_words(sentences, 24):
        with torch.no_grad():
            tokens = net.eval().backbone({name: torch.tensor([row]) for name, row in encoding.items()})[0].numpy()
        found += [tokens[words.index(word)] for word in dict.fromkeys(words) if word is not None]
    return np.stack(found)


def test_the_probe_of_words_is_as_good_as_scikit_learns(tmp_path: Path) -> None:
    net, train, test = model(), tagged(150), tagged(200, seed=1)
    run = fit(net, tmp_path / "run", train)
    (record,) = run.history
    assert record["penalty"] > 0
    assert "lr" not in record
    tags, truth = (np.concatenate([np.asarray(row) for row in part[1]]) for part in (train, test))
    sentences = np.repeat(np.arange(150), [*map(len, train[0])])
    x = features(net, train[0])
    folds = [*GroupKFold(5).split(x, tags, sentences)]
    options: dict[str, Any] = {"l1_ratios": (0.0,), "use_legacy_attributes": False, "scoring": "neg_log_loss"}
    peer = make_pipeline(StandardScaler(), LogisticRegressionCV(cv=folds, max_iter=500, **options)).fit(x, tags)
    assert net.evaluate(test)["accuracy"] > peer.score(features(net, test[0]), truth) - 0.005


def test_the_backbone_runs_once_over_each_sentence(tmp_path: Path) -> None:
    net = model()
    seen = count_samples(net.backbone.get_submodule("embeddings"))
    run = fit(net, tmp_path / "run", valid=tagged(12, seed=1))
    assert seen[0] == 40 + 12 + SAVED
    assert len(run.history) == 1
    assert run.metrics["loss"] < np.log(3)


@pytest.mark.parametrize("grouped", [False, True])
def test_a_sentence_and_a_group_are_on_one_side_of_each_fold(grouped: bool) -> None:
    net = model()
    table = open_data(tagged(20), task="token-classification", reads="words", classes=TAGS)
    if grouped:
        table = dataclasses.replace(table, groups=tuple(str(row // 4) for row in range(20)))
    words = word_table(TextSamples(table, net.inputs))
    assert len(words) == sum(map(len, table.inputs))
    assert len(set(words.groups or ())) == (5 if grouped else 20)
    parts = folds_of(words, 0)
    assert len(parts) == 5
    for train, held in parts:
        assert not {words.groups[row] for row in train} & {words.groups[row] for row in held}  # type: ignore[index]


def test_copies_of_a_sentence_are_one_group() -> None:
    net, (sentences, tags) = model(), tagged(6)
    table = open_data((sentences * 2, tags * 2), task="token-classification", reads="words", classes=TAGS)
    assert len(set(word_table(TextSamples(table, net.inputs)).groups or ())) == 6


def test_the_windows_of_a_sentence_are_one_group() -> None:
    inputs = dataclasses.replace(model().inputs, max_length=8, overflow="windows")
    long = (["sun", "wolf"] * 10, ["O", "B-Animal"] * 10)
    sentences = [long[0], *tagged(4)[0]], [long[1], *tagged(4)[1]]
    table = fit_lengths(open_data(sentences, task="token-classification", reads="words", classes=TAGS), inputs)
    words = word_table(TextSamples(table, inputs))
    first = [row for row, group in enumerate(words.groups or ()) if group == "0"]
    assert len(first) > 20  # those of the overlaps twice
    assert {words.inputs[row] for row in first} == {f"word {number} of row 0" for number in range(20)}
    named = {(words.inputs[row], int(words.targets[row])) for row in first}  # type: ignore[index]
    assert len(named) == 20


def test_long_sentences_are_probed_cut_and_in_windows(tmp_path: Path) -> None:
    long = [words * 6 for words in tagged(12)[0]], [tags * 6 for tags in tagged(12)[1]]
    for overflow in ("windows", "truncate"):
        run = fit(model(), tmp_path / overflow, long, overflow=overflow, max_length=8)
        assert np.isfinite(run.history[0]["train_loss"])


def test_words_of_overlaps_count_as_in_the_loss_of_a_batch(tmp_path: Path) -> None:
    long = [words * 6 for words in tagged(8)[0]], [tags * 6 for tags in tagged(8)[1]]
    net, options = model(dropout=0.0), {"overflow": "windows", "max_length": 8}
    (solved,) = fit(net, tmp_path / "solved", long, **options).history
    (still,) = fit(net, tmp_path / "still", long, epochs=1, lr=1e-12, batch_size=1000, **options).history
    assert "lr" in still
    assert still["train_loss"] == pytest.approx(solved["train_loss"], rel=1e-4)


def test_windows_and_sentences_without_a_word_that_is_read_have_no_rows() -> None:
    net = model()
    tokenizer = zoo.data.texts.tokenizers.open_tokenizer(net.inputs)
    ((encoding, words),) = tokenizer.encode_words([["sun", "fox"]], 24)
    windows = [TextWindow(0, 0, 2, encoding, words), TextWindow(0, 2, 3, encoding, [None] * len(words)), TextWindow(1, 0, 1, encoding, [])]
    targets = np.empty(3, dtype=object)
    targets[:] = [np.array([2, 0]), np.array([2, 2, 1]), np.array([1])]
    table = open_data(tagged(3), task="token-classification", reads="words", classes=TAGS)
    samples = TextSamples(dataclasses.replace(table, inputs=windows, targets=targets), net.inputs)
    outputs = [np.ones((2, 4), np.float32), np.full((3, 4), np.nan, np.float32), np.full((1, 4), np.nan, np.float32)]
    found, rows = word_features(outputs, samples), word_table(samples)
    assert found.tolist() == np.ones((2, 4)).tolist()
    assert rows.inputs == ["word 0 of row 0", "word 1 of row 0"]
    assert rows.targets.tolist() == [2, 0]  # type: ignore[union-attr]


def test_sentences_without_tokens_are_left_out_among_others(tmp_path: Path) -> None:
    words, tags = tagged(20)
    found = [fit(model(), tmp_path / str(len(more)), (words + more, tags + [["O"] * 3 for _ in more])) for more in ([], [[""] * 3] * 2)]
    assert found[0].history[0]["train_loss"] == pytest.approx(found[1].history[0]["train_loss"], abs=0.02)


def test_class_weights_count(tmp_path: Path) -> None:
    found = []
    for name, weights in (("plain", None), ("weighted", {"B-Animal": 50.0, "I-Animal": 1.0, "O": 1.0})):
        net = model()
        fit(net, tmp_path / name, class_weights=weights)
        found.append(sum(tag == "B-Animal" for row in net.predict(tagged(seed=1)[0]) for tag in row))
    assert found[1] > found[0] + 10


@pytest.mark.parametrize("count", [1, 3], ids=["one sentence", "fewer than folds"])
def test_few_sentences_are_enough(count: int, tmp_path: Path) -> None:
    train = [["sun", "wolf", "fox", "rain"]] * count, [["O", "B-Animal", "I-Animal", "O"]] * count
    assert np.isfinite(fit(model(), tmp_path / "run", train).history[0]["train_loss"])


def test_a_tag_of_one_sentence_alone_is_fitted(tmp_path: Path) -> None:
    words, tags = tagged(20)
    plain = [["O" if tag == "I-Animal" else tag for tag in row] for row in tags]
    words[3], plain[3] = ["unheard", "of"], ["I-Animal", "O"]
    net = model()
    fit(net, tmp_path / "run", (words, plain))
    assert net.predict([["sun"]]) == [["O"]]


def test_words_without_tokens_are_named(tmp_path: Path) -> None:
    empty = [[""] * 3 for _ in range(6)], [["O", "B-Animal", "I-Animal"] for _ in range(6)]
    with pytest.raises(TrainingError, match="none of the 6 sentences has a word that is read"):
        fit(model(), tmp_path / "run", empty)


@pytest.mark.parametrize("limit", ["MAX_WORK", "MAX_BYTES"])
def test_a_larger_problem_is_trained(limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solved_head, limit, 100)
    run = fit(model(), tmp_path / "run", epochs=2)
    assert ["lr" in record for record in run.history] == [True, True]


def test_words_are_tuned_from_the_solved_head_at_one_rate_by_default(tmp_path: Path) -> None:
    recipe = default_recipe("token-classification")
    assert [phase.solve for phase in recipe.phases] == [True, False]
    assert recipe.layer_decay == 1.0
    assert recipe.lr * recipe.phases[1].lr == pytest.approx(3e-4)
    run = fit(model(), tmp_path / "run", recipe=None, epochs=3)
    assert ["penalty" in record for record in run.history] == [True, False, False]


def test_a_run_that_began_with_the_earlier_default_goes_on_with_it(tmp_path: Path) -> None:
    earlier = dataclasses.replace(RECIPES["full"], lr=1e-4)
    run = fit(model(), tmp_path / "run", recipe=earlier, epochs=1)
    again = fit(model(), tmp_path / "run", recipe=None, epochs=1, resume=True)
    assert again.history == run.history


def test_two_phases_start_from_the_solved_head(tmp_path: Path) -> None:
    net, probed = model(), model()
    run = fit(net, tmp_path / "run", recipe="layer-decay", epochs=2)
    fit(probed, tmp_path / "probe")
    assert ["penalty" in record for record in run.history] == [True, False]
    assert run.history[1]["train_loss"] < run.history[0]["train_loss"] + 0.5
    assert difference(values(net.backbone), values(probed.backbone)) > 0
