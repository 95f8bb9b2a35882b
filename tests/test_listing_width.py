"""What zoo list and zoo show print fits the terminal, whatever the names; nothing is cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from zoo.cli.app import main
from zoo.cli.output.terminal import fitted_table, page
from zoo.registry.registry import default_registry, use_registry

HEADER = ("name", "params", "top-1", "licence", "plugin")
SHORT = [("acme/net", "1.0M", "80.1", "mit", "zoo-acme"), ("acme/deep-net", "25.6M", "82.3", "apache-2.0", "zoo-acme")]
LONG = [("acme/a-network-of-a-very-long-name", "1.0M", "80.1", "a-licence-with-a-long-name", "zoo-acme"), *SHORT * 10]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    use_registry()

    def run(*words: str, columns: int = 80) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main(words)
        return capsys.readouterr().out.splitlines()

    return run


def lines(rows: Sequence[Sequence[object]], width: int) -> tuple[list[str], list[str]]:
    text, left_out = fitted_table(rows, HEADER, width=width, right=(1, 2), optional=("plugin", "top-1"))
    return text.splitlines(), left_out


def test_a_table_that_fits_has_every_column() -> None:
    found, left_out = lines(SHORT, 60)
    assert (found[0].split(), left_out) == (list(HEADER), [])
    assert len(found) == 3


def test_columns_are_left_out_in_their_order_until_the_table_fits() -> None:
    found, left_out = lines(SHORT, 44)
    assert (found[0].split(), left_out) == (["name", "params", "top-1", "licence"], ["plugin"])
    found, left_out = lines(SHORT, 36)
    assert (found[0].split(), left_out) == (["name", "params", "licence"], ["plugin", "top-1"])


@pytest.mark.parametrize("width", [36, 40])
def test_a_row_that_is_too_long_takes_two_lines_and_loses_nothing(width: int) -> None:
    found, _ = lines(LONG, width)
    assert max(map(len, found)) <= width
    assert (found[1], found[2].split()) == (LONG[0][0], ["1.0M", "a-licence-with-a-long-name"])
    assert found[3].split() == ["acme/net", "1.0M", "mit"]


def test_a_page_wraps_at_blanks_and_cuts_no_word() -> None:
    url = "https://host.example/" + "x" * 45
    text = page({"weights": url, "layer groups": ", ".join(f"stage{i}" for i in range(20)), "empty": ""}, width=72)
    assert max(map(len, text.splitlines())) <= 72
    assert text.splitlines()[:2] == ["  weights", f"    {url}"]
    assert "empty" not in text


@pytest.mark.parametrize("columns", [80, 100])
@pytest.mark.parametrize("pattern", ["*", "hf/*", "timm/*", "torchvision/*", "monai/*", "zoo/*"])
def test_no_line_of_a_listing_is_longer_than_the_terminal_and_every_name_is_whole(
    pattern: str, columns: int, run: Callable[..., list[str]]
) -> None:
    try:
        names = default_registry().listed(pattern)
    except LookupError:
        pytest.skip("its plugin is not installed")
    if not names:
        pytest.skip("its plugin is not installed")
    found = run("list", pattern, columns=columns)
    assert max(map(len, found)) <= columns
    starts = {line.split()[0] for line in found if line and not line.startswith(" ")}
    assert set(names) <= starts


def test_the_column_that_a_listing_is_sorted_by_is_there(run: Callable[..., list[str]]) -> None:
    assert "top-1" in run("list", "--sort", "accuracy")[0]
    assert "GMACs" in run("list", "--sort", "gmacs")[0]


def test_a_wide_terminal_has_every_column(run: Callable[..., list[str]]) -> None:
    assert run("list", columns=200)[0].split() == ["name", "params", "GMACs", "input", "top-1", "licence", "plugin"]


@pytest.mark.parametrize("source", ["zoo", "timm", "hf", "torchvision", "monai", "xrv"])
def test_every_page_of_a_backbone_fits(source: str, run: Callable[..., list[str]]) -> None:
    names = [name for name in default_registry().names() if name.startswith(f"{source}/")]
    if not names:
        pytest.skip("its plugin is not installed")
    for name in sorted(names, key=len)[-3:]:
        found = run("show", name)
        assert found[0] == name
        assert all(len(line) <= 80 or len(line.split()) == 1 for line in found), name  # a URL is whole, however long it is
        assert any(line.strip().startswith("licence") or "none: it starts from random" in line for line in found)


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("hf/google-bert/bert-base-uncased", ["pooled by the backbone itself", "bert-base-uncased", "apache-2.0"]),
        ("hf/sentence-transformers/all-MiniLM-L6-v2", ["pooled by avg", "256 tokens"]),
    ],
)
def test_the_page_of_a_text_backbone_tells_its_pooling(name: str, facts: list[str], run: Callable[..., list[str]]) -> None:
    pytest.importorskip("zoo_hf")
    text = "\n".join(run("show", name))
    assert all(fact in text for fact in facts), text
    assert "'num_hidden_layers'" not in text, "the whole configuration is for --json"
