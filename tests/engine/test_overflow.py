"""Texts longer than the maximum: counted, refused, or read in windows, in training and afterwards."""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

import zoo
from tests.engine.test_text import WORDS, model, sentences, tagged
from tests.toy_text import ToyTextPlugin
from zoo.cli.app import main
from zoo.data.open import open_data
from zoo.data.texts.token_ids import fit_lengths
from zoo.errors import DataError, OptionError, SavedModelError
from zoo.registry.registry import Registry, use_registry
from zoo.tasks.multi_label import MultiLabel
from zoo.tasks.scores import sigmoid, softmax
from zoo.tasks.single_label import SingleLabel

LONG = " ".join(["sun"] * 40)  # 42 tokens; the maximum is 24
INPUTS = zoo.Text(max_length=24, tokenizer="tests.toy_tokenizer:open_tokenizer", overflow="windows")


@pytest.fixture(autouse=True)
def texts() -> Iterator[None]:
    use_registry(Registry(plugins=[zoo.builtin, ToyTextPlugin()], files=[]))
    yield
    use_registry()


def numbered(count: int) -> list[str]:
    return [f"w{index}" for index in range(count)]


def late(count: int = 40, seed: int = 0) -> tuple[list[str], list[str]]:
    """Return texts of 60 words, whose class is an animal behind the maximum."""
    source = np.random.default_rng(seed)
    labels = [("cat", "dog")[index % 2] for index in range(count)]
    return [" ".join([*source.choice(WORDS[:5], 40), *[label] * 20]) for label in labels], labels


def test_what_was_cut_is_counted_everywhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told = "2 texts of 4 cut to 24 tokens, which loses 46% of their tokens; overflow='windows'"  # 24 of 42, 24 of 47
    data = [LONG, "sun", f"{LONG} {' '.join(['rain'] * 5)}", "rain"]
    net = model(labels=("cat", "dog"))
    for use in (net.predict, net.predict_proba, net.embed, lambda texts: net.evaluate((texts, ["cat", "dog"] * 2))):
        caplog.clear()
        use(data)
        warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert [told in warning for warning in warnings if "random values" not in warning] == [True]
    caplog.clear()
    net.fit((data * 3, ["cat", "dog"] * 6), sentences(8), recipe="linear-probe", epochs=1, out=tmp_path / "run", quiet=True)
    assert "6 texts of 12 cut to 24 tokens, which loses 46% of their tokens" in caplog.text


def test_a_text_that_fills_the_maximum_is_not_cut(caplog: pytest.LogCaptureFixture) -> None:
    model().predict([" ".join(["sun"] * 22)])
    assert "cut to" not in caplog.text


def test_long_texts_are_refused_before_training(tmp_path: Path) -> None:
    net = model(labels=("cat", "dog"))
    with pytest.raises(DataError, match=r"2 texts of 3 exceed 24 tokens: row 0 \('sun sun.*…\) has 42 tokens of at most 24, row 2"):
        net.predict([LONG, "sun", LONG], overflow="error")
    with pytest.raises(DataError, match=r"of at most 16.*zoo predict --max-length N"):
        net.embed(["sun " * 18], overflow="error", max_length=16)
    assert len(net.predict(["sun " * 18], overflow="error")) == 1
    with pytest.raises(OptionError, match="takes at most 24 tokens"):
        net.predict([LONG], max_length=48)
    with pytest.raises(OptionError, match="max_length is 4; it must be a whole number of tokens, 8 or more"):
        net.evaluate((["sun"], ["cat"]), max_length=4)
    valid = [*sentences(8)[0], LONG], [*sentences(8)[1], "cat"]
    with pytest.raises(DataError, match="1 text of 9 exceed"):
        net.fit(sentences(8, seed=1), valid, overflow="error", epochs=1, out=tmp_path / "run", quiet=True)
    net.fit(sentences(8), sentences(8), overflow="error", recipe="linear-probe", epochs=1, out=tmp_path / "short", quiet=True)
    with pytest.raises(DataError, match="exceed"):
        zoo.load(tmp_path / "short").predict([LONG])


@pytest.mark.parametrize("recipe", ["full", "linear-probe"])
def test_windows_are_learned_from_and_travel_with_the_model(recipe: str, tmp_path: Path) -> None:
    net, options = model(), {"recipe": recipe, "batch_size": 8, "lr": 0.02, "quiet": True}
    run = net.fit(late(), late(seed=1), overflow="windows", epochs=12, out=tmp_path / "run", **options)
    loaded = zoo.load(tmp_path / "run")
    assert run.metrics["accuracy"] == loaded.evaluate(late(seed=1))["accuracy"]
    assert_allclose(run.metrics["loss"], loaded.evaluate(late(seed=1))["loss"], rtol=1e-5)
    if recipe == "full":
        assert loaded.evaluate(late(seed=2))["accuracy"] > 0.9
        assert loaded.evaluate(late(seed=2), overflow="truncate")["accuracy"] < 0.9
    assert json.loads((tmp_path / "run" / "config.json").read_text())["zoo"]["overflow"] == "windows"
    again = net.fit(late(), late(seed=1), overflow="windows", epochs=12, out=tmp_path / "run", resume=True, **options)
    assert again.metrics["accuracy"] == run.metrics["accuracy"]


def test_the_first_line_of_a_run_counts_texts_and_windows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how: dict[str, Any] = {"recipe": "linear-probe", "epochs": 1, "batch_size": 8, "out": tmp_path / "run"}
    model().fit(late(8), late(4, seed=1), overflow="windows", **how)
    assert re.search(r"8 training samples in \d\d windows, 4 for validation in \d\d windows, ", capsys.readouterr().err)


def test_a_long_text_has_the_mean_of_its_windows_probabilities() -> None:
    net = model().eval()
    words = numbered(50)
    parts = [" ".join(words[start : start + 22]) for start in (0, 16, 32)]  # 6 words overlap, a quarter of 24
    whole, single = net.predict_proba([" ".join(words), "w1 w2"], overflow="windows"), net.predict_proba([*parts, "w1 w2"])
    assert_allclose(whole, [single[:3].mean(0), single[3]], atol=1e-6)
    features = net.embed(parts)
    assert_allclose(net.embed([" ".join(words)], overflow="windows")[0], features.mean(0), atol=1e-6)
    assert_allclose(net.predict_proba([" ".join(words)], overflow="windows", batch_size=1), whole[:1], atol=1e-6)


def test_pooled_logits_have_the_mean_probabilities() -> None:
    logits = np.random.default_rng(0).normal(size=(4, 3)) * 50
    assert_allclose(softmax(SingleLabel().pool(logits)), softmax(logits).mean(0), rtol=1e-9)
    assert_allclose(sigmoid(MultiLabel().pool(logits)), sigmoid(logits).mean(0), rtol=1e-9)


@pytest.mark.parametrize("number", [1, 22, 23, 24, 50, 500])
@pytest.mark.parametrize("letters", [2, 9, 200])
def test_windows_of_words_cover_a_sentence_and_fit(number: int, letters: int) -> None:
    words = [word.ljust(letters, "x") for word in numbered(number)]
    table = fit_lengths(open_data([words, ["short"]], reads="words", labelled=False, task="token-classification"), INPUTS)
    if number * -(-letters // 4) + 2 <= 24:
        assert list(table.inputs) == [words, ["short"]]
        return
    parts = [window for window in table.inputs if window.text == 0]
    assert sorted({index for part in parts for index in range(part.first, part.first + part.size)}) == list(range(number))
    assert [one.first < other.first for one, other in itertools.pairwise(parts)] == [True] * (len(parts) - 1)
    assert all(len(part.encoding["input_ids"]) <= 24 for part in parts)
    assert all(set(part.words) - {None} == set(range(part.size)) for part in parts), "a word of a window has no token"
    if letters == 2:
        assert all(one.first + one.size - other.first >= 6 for one, other in itertools.pairwise(parts))


def test_every_word_of_a_long_sentence_is_predicted_once_from_the_middle_of_a_window() -> None:
    net = model("token-classification", 3, labels=("A", "B", "O")).eval()
    words = numbered(50)
    whole = net.predict_proba([words, words[:3]], overflow="windows")
    assert [rows.shape for rows in whole] == [(50, 3), (3, 3)]
    assert np.isfinite(whole[0]).all()
    windows = net.predict_proba([words[:22], words[16:38], words[32:50]])
    assert_allclose(whole[0], np.concatenate([windows[0][:19], windows[1][3:19], windows[2][3:]]), atol=1e-6)


def test_words_behind_the_maximum_are_learned_in_windows(tmp_path: Path) -> None:
    shift = lambda data: ([["sun"] * 30 + words for words in data[0]], [["O"] * 30 + tags for tags in data[1]])  # noqa: E731
    train, valid = shift(tagged()), shift(tagged(seed=1))
    net = model("token-classification", 3)
    run = net.fit(train, valid, overflow="windows", recipe="full", epochs=15, lr=0.02, batch_size=8, out=tmp_path / "run", quiet=True)
    assert run.metrics["f1"] > 0.9
    assert zoo.load(tmp_path / "run").evaluate(valid)["f1"] == run.metrics["f1"]
    assert net.evaluate(valid, overflow="truncate")["recall"] == 0


def test_no_class_is_guessed_for_a_word_that_was_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    net = model("token-classification", 2, labels=("NOUN", "VERB")).eval()
    words = ["sun"] * 100
    (labels,) = net.predict([words])
    assert set(labels[:22]) <= {"NOUN", "VERB"}
    assert labels[22:] == [""] * 78
    assert "1 text of 1 cut to 24 tokens, which loses 76% of their tokens (78 words)" in caplog.text
    tags = labels[:22] + ["NOUN" if labels[0] == "VERB" else "VERB"] * 78
    metrics = net.evaluate(([words], [tags]))
    assert metrics["accuracy"] == 1.0
    assert metrics["majority"] == 1.0


def test_a_tokenizer_without_windows_and_other_faults_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.toy_tokenizer import ToyTokenizer

    net = model()
    with pytest.raises(OptionError, match=r"'window' \(did you mean 'windows'\?\)"):
        net.predict(["sun"], overflow="window")
    with pytest.raises(OptionError, match="overflow is for texts"):
        zoo.get("zoo/glyphnet", weights=False).adapt(2).predict(np.zeros((1, 32, 32), np.uint8), overflow="windows")
    net.save(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    config["zoo"]["overflow"] = "explode"
    (tmp_path / "saved" / "config.json").write_text(json.dumps(config))
    with pytest.raises(SavedModelError, match="overflow"):
        zoo.load(tmp_path / "saved")
    monkeypatch.delattr(ToyTokenizer, "encode_windows")
    with pytest.raises(OptionError, match=r"ToyTokenizer has no encode_windows\(\)"):
        net.predict([LONG], overflow="windows")


def test_the_command_line_takes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(model(labels=("cat", "dog")).save(tmp_path / "saved"))
    with pytest.raises(SystemExit) as stopped:
        main(["predict", folder, LONG, "--overflow", "error"])
    assert stopped.value.code == 1
    assert "1 text of 1 exceeds 24 tokens" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["predict", folder, LONG, "--overflow", "windows", "--json"])
    (row,) = json.loads(capsys.readouterr().out)
    assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-6)


def prompted(**changes: Any) -> ToyTextPlugin:
    class Plugin(ToyTextPlugin):
        @zoo.hookimpl
        def zoo_backbones(self) -> list[zoo.BackboneSpec]:
            from tests.toy_text import toy_text_spec

            return [toy_text_spec(inputs=zoo.Text(max_length=24, tokenizer="tests.toy_tokenizer:open_tokenizer", **changes))]

    return Plugin()


def test_prompts_are_put_before_texts_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    use_registry(Registry(plugins=[zoo.builtin, prompted(prompts={"query": "find ", "passage": "is "})], files=[]))
    zoo.get("toy/text", weights=False).adapt(2).save(tmp_path / "saved")
    net = zoo.load(tmp_path / "saved")
    with_prompt = net.embed(["sun", "rain"], prompt_name="query")
    assert "prompt_name" not in caplog.text
    assert np.array_equal(with_prompt, net.embed(["find sun", "find rain"]))
    assert "prompt_name= puts one before each text: 'query', 'passage'" in caplog.text
    with pytest.raises(OptionError, match=r"'querry' \(did you mean 'query'\?\)"):
        net.embed(["sun"], prompt_name="querry")
    with pytest.raises(OptionError, match="not for pairs"):
        net.embed([("sun", "rain")], prompt_name="query")


def test_more_tokens_than_the_publisher_advises_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    use_registry(Registry(plugins=[zoo.builtin, prompted(max_positions=40)], files=[]))
    net = zoo.get("toy/text", weights=False).adapt(2)
    options: dict[str, Any] = {"recipe": "linear-probe", "epochs": 1, "quiet": True}
    with pytest.raises(OptionError, match="takes at most 40 tokens"):
        net.fit(sentences(8), sentences(8), max_length=41, **options)
    net.fit(sentences(8), sentences(8), max_length=40, out=tmp_path / "run", **options)
    assert "max_length is 40; the publisher of backbone 'toy/text' advises at most 24 tokens, though its positions reach 40" in caplog.text
    assert zoo.load(tmp_path / "run").inputs.max_length == 40  # type: ignore[union-attr]  # a text
