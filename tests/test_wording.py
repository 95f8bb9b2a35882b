"""Messages that people read on the command line name flags, not arguments of Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import zoo
from tests.engine.tiny import NAMES
from tests.test_docs import run_zoo
from zoo.cli.app import build_parser
from zoo.cli.output.wording import as_typed, use_flags


@pytest.fixture
def flags() -> Iterator[None]:
    use_flags(["--columns", "--label-columns", "--image-size", "--out", "--seed", "--valid", "--no-valid", "--weights"])
    yield
    use_flags(())


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("go on with resume=True (--resume) and out='runs/x'", "go on with --resume and --out runs/x"),
        ("it needs out (--out), a folder", "it needs --out, a folder"),
        ("take task='multi-label' (--task multi-label), or split='val' (--split)", "take --task multi-label, or --split val"),
        ("columns={TASK: COLUMN} (--columns TASK=COLUMN) names it", "--columns TASK=COLUMN names it"),
        ("Name yours with columns={'a': 'b'}, on the command line --columns a=b", "Name yours with --columns a=b"),
        ("columns={'group': 'patient', 'label': 'kind'} needs a table", "--columns group=patient,label=kind needs a table"),
        ("columns={'file_name': …} names another", "--columns file_name=… names another"),
        ("label_columns=['a', 'b c'] needs a table", "--label-columns 'a,b c' needs a table"),
        ("columns={'group': 'my, own'} needs a table", "columns={'group': 'my, own'} needs a table"),
        ("adapt(labels=…) (--classes A,B), with drop=True (--drop)", "--classes A,B, with --drop"),
        ("give window=(centre, width) (--window C,W), or zoo.Image(window=…)", "give --window C,W, or zoo.Image(window=…)"),
        ("valid=False: seed=1.5, image_size=64.", "--no-valid: --seed 1.5, --image-size 64."),
        ("give weights='my net.pth'", "give --weights 'my net.pth'"),
        ("solve_head=False trains it", "solve_head=False trains it"),
        ("seed is 'x', and the seed is 3", "--seed is 'x', and the seed is 3"),
        ("wrong:\n  - seed is -1\n  - out is missing", "wrong:\n  - --seed is -1\n  - out is missing"),
        ("seed is for folds; a seed is for folds", "--seed is for folds; a seed is for folds"),
        ("train one: adapt(labels=…) (zoo train --classes A,B).", "train one: zoo train --classes A,B."),
        ("rank() (zoo rank) has no option 'lr'", "zoo rank has no option 'lr'"),
        ("no file 'seed=3.csv' in 'my seed=3' or runs/seed=3", "no file 'seed=3.csv' in 'my seed=3' or runs/seed=3"),
        ("zoo.get('x', image_size=3)", "zoo.get('x', image_size=3)"),
        ("image_size=nan: it is a number", "image_size=nan: it is a number"),
        ('weights="it\'s" is no file', 'weights="it\'s" is no file'),
        ("x/my seed=3/a.png is broken, like https://host/x?seed=3&out=4", "x/my seed=3/a.png is broken, like https://host/x?seed=3&out=4"),
    ],
)
@pytest.mark.usefixtures("flags")
def test_an_option_is_named_as_it_is_typed(text: str, typed: str) -> None:
    assert as_typed(text) == typed


def test_an_option_without_a_flag_is_given_by_set_where_the_command_has_that() -> None:
    use_flags(["--set", "--lr", "--image-weights", "--text-weights"])
    try:
        assert as_typed("overflow='windows' reads them, lr=0.1 too") == "--set overflow=windows reads them, --lr 0.1 too"
        assert as_typed("weights=False (--weights none) starts") == "--image-weights none or --text-weights none starts"
        assert as_typed("resume=True (--resume) and out='runs/x'") == "--set resume=true and --set out=runs/x"
        assert as_typed("refit_bias=False leaves them as tuned") == "--set refit_bias=false leaves them as tuned"
        assert as_typed("the option nonsense=3 and valid=False") == "the option nonsense=3 and valid=False"
        assert as_typed("mix_few=True is none") == "mix_few=True is none", "no option, but a field of the engine"
    finally:
        use_flags(())


def test_a_command_names_its_flags_and_python_its_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = zoo.get("zoo/glyphnet").adapt(3, labels=NAMES)
    model.save(tmp_path / "model")
    (tmp_path / "data.csv").write_text("picture_of,label\na.png,red\n")
    code, told = run_zoo(["eval", str(tmp_path / "model"), str(tmp_path / "data.csv")], capsys)
    assert code == 1
    assert "--columns" in told
    assert "columns={" not in told
    with pytest.raises(zoo.ZooError, match=r"columns=\{"):
        model.evaluate(tmp_path / "data.csv")
    code, told = run_zoo(["train", "--help"], capsys)
    assert "in Python" not in told
    assert "adapt(" not in told


def test_a_message_names_at_most_twelve_of_what_there_is(tmp_path: Path) -> None:
    names = [f"gene{number}" for number in range(300)]
    (tmp_path / "wide.csv").write_text(",".join(names) + "\n" + ",".join(["0.5"] * 300) + "\n")
    (tmp_path / "splits.csv").write_text("text,label,split\n" + "".join(f"word {n},{n % 2},part{n}\n" for n in range(300)))
    model = zoo.get("zoo/glyphnet").adapt(300, labels=names)
    calls = (
        lambda: zoo.open_data(tmp_path / "wide.csv"),
        lambda: zoo.open_data(tmp_path / "splits.csv", reads="text", split="other"),
        lambda: model.evaluate(tmp_path / "splits.csv"),
        lambda: zoo.get("zoo/glyphnet").adapt(300, labels=["twice", "twice", *names[2:]]),
    )
    for call in calls:
        with pytest.raises(zoo.ZooError) as caught:
            call()
        assert sum(name in str(caught.value) for name in [*names, *(f"part{n}" for n in range(300))]) < 60, "as text of one another"
        assert len(str(caught.value)) < 1000, caught.value


@pytest.mark.parametrize(("word", "near"), [("report", "zoo compare"), ("fit", "nearest: zoo train"), ("trian", "did you mean 'train'")])
def test_an_unknown_command_names_the_nearest_one(word: str, near: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        build_parser().parse([word])
    assert stop.value.code == 2
    assert near in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("predict zoo/glyphnet a.png", "'zoo/glyphnet' is a pretrained backbone, which has no trained head yet: zoo.get"),
        ("predict nowhere a.png", "there is no folder 'nowhere'"),
        ("predict a.png model", "the order is zoo predict MODEL INPUTS"),
        ("eval photos model", "the order is zoo eval MODEL DATA"),
        ("calibrate photos model", "the order is zoo calibrate MODEL DATA"),
        ("train ./photos zoo/glyphnet", "the folder of this name holds no model; where it holds data, the backbone is named before them"),
        ("rank photos zoo/glyphnet", "backbones are named by --candidates"),
        ("data photos", "the word 'check' is missing before 'photos'"),
        ("train zoo/glyphnet photos --bs 8", "'--bs' (here: --batch-size)"),
        ("train zoo/glyphnet photos --test more", "'--test' (zoo eval MODEL DATA measures on test data)"),
        ("train zoo/glyphnet --data photos", "'--data' (it stands without a flag: zoo train NAME DATA)"),
        (
            "train zoo/glyphnet photos --label-column kind --gpu",
            "'--label-column' (here: --columns label=NAME), '--gpu' (here: --set device=cuda)",
        ),
        ("soup a b --on photos", "'--on' (here: --valid)"),
        ("compare a b --tets photos", "'--tets' (did you mean '--test'?)"),
        ("eval model --test photos", "'--test' (it stands without a flag: zoo eval MODEL DATA)"),
        ("rank photos --backbones a b", "'--backbones' (here: --candidates)"),
        ("predict model photos -o x.csv", "'-o' (here: --out)"),
        ("rank photos --then tune", "it is 'tune'; it can be: train"),
        ("", "name a command: list, show"),
    ],
)
def test_words_in_another_order_and_of_other_tools_are_told_what_was_meant(
    words: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    zoo.get("zoo/glyphnet").adapt(2).save("model")
    code, printed = run_zoo(words.split(), capsys)
    assert (code > 0, told in printed) == (True, True), printed
