"""The command line: what it prints, where, and with which exit code; nothing heavy before it is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

import zoo
from tests.faults.fake_dist import fake_dist, run_python, run_zoo
from zoo.cli.app import main
from zoo.cli.arguments import settings
from zoo.data.open import open_train_valid
from zoo.errors import InterruptedRunError, OptionError
from zoo.registry.registry import use_registry


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Done]]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("ZOO_REGISTRY", raising=False)
    use_registry()

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        code = stop.value.code
        return Done(code if isinstance(code, int) else 0, out, err)

    yield run
    use_registry()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark and light pictures, in train and val."""
    folder, random = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split, number in (("train", 6), ("val", 3)):
        for index, label in enumerate(("dark", "light")):
            (folder / split / label).mkdir(parents=True)
            for i in range(number):
                pixels = (random.integers(0, 80, (32, 32)) + 150 * index).astype("uint8")
                Image.fromarray(pixels).save(folder / split / label / f"{i}.png")
    return folder


def derived(tmp_path: Path, alias: str = "mine", name: str = "local/glyph") -> Path:
    path = tmp_path / f"{alias}.toml"
    path.write_text(f'[aliases]\n{alias} = "{name}"\n[backbones."{name}"]\nbase = "zoo/glyphnet"\ninputs = {{ size = 48 }}\n')
    return path


def test_a_listing_is_one_json_document_with_what_a_choice_needs(run: Callable[..., Done]) -> None:
    done = run("list", "zoo/*", "--json")
    assert (done.code, done.err) == (0, "")
    (row,) = done.json
    assert (row["name"], row["source"], row["modality"], row["distribution"]) == ("zoo/glyphnet", "zoo", "image", "transfer-zoo")
    assert row["parameters"] > 0
    assert row["pretrained"] is True
    assert row["input"] == [1, 32, 32]


def test_a_listing_for_people_is_a_table_with_a_count(run: Callable[..., Done]) -> None:
    done = run("list", "glyphnet", "--license", "permissive", "--max-params", "1e6", "--pretrained")
    assert done.code == 0
    header, row, *_, last = done.out.strip().splitlines()
    assert header.split()[:2] == ["name", "params"]
    assert row.startswith("zoo/glyphnet")
    assert last == "1 backbone"


def test_a_filter_that_leaves_nothing_lists_nothing(run: Callable[..., Done]) -> None:
    few = run("list", "zoo/*", "--max-params", "1k", "--json")
    assert (few.code, few.out) == (0, "[]\n")
    assert "--max-params 1000 leaves nothing of 1 backbone that matches 'zoo/*'" in few.err
    nothing = run("list", "glyphnett")
    assert (nothing.code, nothing.out) == (0, "0 backbones\n")
    assert "did you mean 'zoo/glyphnet'" in nothing.err
    assert "description" in run("list", "no-such-thing").err, "it says what was searched"
    assert run("list", "gly*", "zoo*").code == 2
    assert run("list", "small", "letters", "--no-plugins").out.endswith("\n1 backbone\n")


def test_aliases_are_listed_by_their_own_name_or_their_id(run: Callable[..., Done], tmp_path: Path) -> None:
    files = ("--registry", derived(tmp_path), "--registry", derived(tmp_path, "other", "local/second"))
    assert run("list", "--aliases", "mine", "--json", *files).json == [{"alias": "mine", "name": "local/glyph"}]
    assert {row["alias"] for row in run("list", "--aliases", "local/*", "--json", *files).json} == {"mine", "other"}
    lines = run("list", "--aliases", "--license", "permissive", "--source", "local", *files).out.splitlines()
    assert [line.split() for line in lines] == [["alias", "name"], ["mine", "local/glyph"], ["other", "local/second"], [], ["2", "aliases"]]
    none = run("list", "--aliases", "mien", *files)
    assert (none.out, "did you mean 'mine'" in none.err) == ("0 aliases\n", True)


@pytest.mark.parametrize("place", ["before", "after", "both"])
def test_registry_files_are_taken_before_and_after_the_command(place: str, run: Callable[..., Done], tmp_path: Path) -> None:
    one, two = derived(tmp_path), derived(tmp_path, "other", "local/other")
    first, second = ["--registry", one], [f"--registry={two}"]
    arguments = {"before": [*first, *second, "list", "local/*"], "after": ["list", "local/*", *first, *second]}
    arguments["both"] = [*first, "list", "local/*", *second]
    done = run(*arguments[place], "--json")
    assert [row["name"] for row in done.json] == ["local/glyph", "local/other"]


def test_a_declaration_is_shown(run: Callable[..., Done], tmp_path: Path) -> None:
    done = run("show", "mine", "--json", "--registry", derived(tmp_path))
    assert (done.json["name"], done.json["base"], done.json["modality"]) == ("local/glyph", "zoo/glyphnet", "image")
    assert done.json["inputs"]["size"] == [48, 48]
    assert "apache-2.0" in run("show", "zoo/glyphnet").out


def test_layer_groups_are_shown_with_a_frozen_prefix(run: Callable[..., Done]) -> None:
    names = list(zoo.get("zoo/glyphnet", weights=False).groups.names)
    done = run("layers", "zoo/glyphnet", "--freeze", names[1])
    rows = [line.split() for line in done.out.splitlines()[1 : 1 + len(names)]]
    assert [row[1] for row in rows] == names
    assert [row[3] for row in rows] == ["frozen"] * 2 + ["trains"] * (len(names) - 2)
    done = run("layers", "zoo/glyphnet", "--freeze", "stagee")
    assert done.code == 2
    assert "stage" in done.err


def test_plugins_are_shown_with_what_they_give(run: Callable[..., Done]) -> None:
    builtin = next(row for row in run("plugins", "--json").json if row["name"] == "builtin")
    assert (builtin["distribution"], builtin["status"], builtin["backbones"]) == ("transfer-zoo", "ok", 1)
    assert builtin["heads"] >= 2
    assert "builtin" in run("plugins").out


@pytest.mark.parametrize(
    ("line", "facts"),
    [
        ("lst", ["did you mean 'list'"]),
        ("list --modalty image", ["'--modalty'", "did you mean '--modality'"]),
        ("train x data --epoch 3", ["did you mean '--epochs'"]),
        ("train x data --epochs three", ["--epochs", "three"]),
        ("train x", ["DATA"]),
        ("", ["name a command: list, "]),
        ("list --modality imgae", ["did you mean 'image'"]),
        ("list --max-params 30", ["30 million are 30M"]),
        ("list --sort acuracy", ["did you mean 'accuracy'"]),
        ("show glyphnett", ["did you mean 'zoo/glyphnet'"]),
        ("train x data --recipe lpft", ["'lpft'", "did you mean 'lp-ft'"]),
        ("train x data --task single", ["'single'", "single-label"]),
        ("train x data --set epoch=3", ["did you mean 'epochs'"]),
        ("train x data --set epochs", ["key=value"]),
        ("train x data --lr nan", ["lr"]),
        ("train x data --columns file_name", ["ROLE=COLUMN"]),
    ],
)
def test_a_wrong_word_is_a_usage_error_with_the_nearest(line: str, facts: list[str], run: Callable[..., Done]) -> None:
    done = run(*line.split())
    assert done.code == 2
    assert done.out == ""
    assert all(fact in done.err for fact in facts), done.err
    assert "Traceback" not in done.err


def test_a_config_with_typos_tells_all_of_them(run: Callable[..., Done], tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("epoch = 3\nrecipee = 'full'\ncolumns = 'x'\n")
    done = run("train", "x", "data", "--config", config)
    assert done.code == 2
    assert all(fact in done.err for fact in ("'epoch' (did you mean 'epochs'?)", "did you mean 'recipe'", "columns is 'x'", "config.toml"))
    config.write_text("epochs = ")
    assert "cannot be read" in run("train", "x", "data", "--config", config).err
    assert "cannot be read" in run("train", "x", "data", "--config", tmp_path / "absent.toml").err


def test_flags_win_over_the_config_and_both_reach_fit(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        "recipe = 'full'\nepochs = 7\nlr = 0.1\nmixup = 0.2\nout = 'a'\n[columns]\nfile_name = 'file'\n[model_options]\na = 1\n"
    )
    flags = {"epochs": 3, "lr": None, "out": "b", "columns": {}, "options": settings.pairs(["warmup=0.2", "augment=none"], "--set")}
    merged = settings.merge(config, flags)
    assert merged["fit"] == {"epochs": 3, "lr": 0.1, "mixup": 0.2, "warmup": 0.2, "augment": "none"}
    assert (merged["recipe"], merged["out"], merged["columns"]) == ("full", "b", {"file_name": "file"})
    assert (merged["model_options"], merged["task"]) == ({"a": 1}, "single-label")
    config.write_text("epochs = 'many'\nlayer_decay = 2")
    with pytest.raises(OptionError, match=r"(?s)layer_decay.*"):
        settings.merge(config, {})


def test_words_of_the_form_key_value_are_read_as_numbers_where_they_are() -> None:
    told = settings.pairs(["a=1", "b=0.5", "c=true", "d=none", "e=[1, 2]", "f=x=y", 'g="3"'], "--set")
    assert told == {"a": 1, "b": 0.5, "c": True, "d": "none", "e": [1, 2], "f": "x=y", "g": "3"}
    assert settings.columns("file_name=file,group=patient_id") == {"file_name": "file", "group": "patient_id"}
    assert settings.columns("label=true,file_name=1e3, group = null") == {"label": "true", "file_name": "1e3", "group": "null"}


@pytest.mark.parametrize(
    "line",
    [
        "list --json",
        "list glyphnett",
        "plugins",
        "show glyphnet",
        "train glyphnett data",
        "train zoo/glyphnet data --recipe lpft",
        "train zoo/glyphnet data --set epoch=3",
    ],
)
def test_torch_is_not_imported_by(line: str, tmp_path: Path) -> None:
    code = f"""
        import sys
        from zoo.cli import main
        try:
            main({line.split()!r})
        except SystemExit:
            print({{"torch", "timm", "typer"}} & set(sys.modules) or "light", file=sys.stderr)
    """
    done = run_python(code, cwd=tmp_path)
    assert done.stderr.splitlines()[-1] == "light", done.stderr


def test_what_a_plugin_prints_stays_out_of_the_json_document(tmp_path: Path) -> None:
    source = "import zoo\nprint('hello from a plugin')\n@zoo.hookimpl\ndef zoo_backbones():\n    print('listing')\n    return []\n"
    fake_dist(tmp_path, "zoo-loud", source)
    done = run_zoo("list", "--json", paths=[tmp_path], cwd=tmp_path)
    assert isinstance(json.loads(done.stdout), list)
    assert "hello from a plugin" in done.stderr


def test_errors_show_a_traceback_only_when_asked(run: Callable[..., Done], tmp_path: Path) -> None:
    done = run("--registry", tmp_path / "absent.toml", "list")
    assert done.code == 1
    assert done.err.startswith("error: --registry names")
    assert "Traceback" in run_zoo("show", "glyphnett", "--debug", cwd=tmp_path).stderr


@pytest.mark.parametrize(("error", "code"), [(InterruptedRunError("a checkpoint was written"), 130), (KeyboardInterrupt(), 130)])
def test_an_interrupted_command_exits_with_130(
    error: BaseException, code: int, run: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise error

    monkeypatch.setattr("zoo.registry.registry.default_registry", stopped)
    assert run("list").code == code


def test_a_reader_that_stops_early_gets_no_complaint(tmp_path: Path) -> None:
    code = f"""
        import subprocess, sys
        child = subprocess.Popen([{sys.executable!r}, "-m", "zoo.cli", "list", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        child.stdout.close()
        print(child.stderr.read().decode(), child.wait())
    """
    assert run_python(code, cwd=tmp_path).stdout.split() == ["0"]


def test_version_and_help_say_what_they_should(run: Callable[..., Done]) -> None:
    assert run("--version").out == f"zoo {zoo.__version__}\n"
    told = run("--help").out
    assert all(command in told for command in ("list", "show", "layers", "plugins", "train", "eval", "predict", "embed", "demo"))
    assert all(flag in run("train", "--help").out for flag in ("--valid", "--recipe", "--registry", "--strict-plugins", "--config"))


def test_a_model_is_trained_measured_and_used(run: Callable[..., Done], pictures: Path, tmp_path: Path) -> None:
    registry = derived(tmp_path)
    done = run("train", "mine", pictures, "--recipe", "linear-probe", "--epochs", 2, "--out", "runs/one", "--quiet", "--registry", registry)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "runs/one"

    done = run("eval", "runs/one", pictures / "val", "--json", "--registry", registry)
    assert done.code == 0, done.err
    assert 0 <= done.json["accuracy"] <= 1

    files = sorted((pictures / "val" / "light").iterdir())
    rows = run("predict", "runs/one", *files, "--json").json
    assert [row["input"] for row in rows] == list(map(str, files))
    for row in rows:
        assert set(row["probabilities"]) == {"dark", "light"}
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert row["label"] == max(row["probabilities"], key=row["probabilities"].get)
    assert len(run("predict", "runs/one", pictures / "val").out.splitlines()) == 1 + 6

    done = run("embed", "runs/one", pictures / "val", "--out", "new/features", "--json")
    assert (done.code, done.json["file"], len(done.json["inputs"])) == (0, "new/features.npz", 6)
    done = run("embed", "runs/one", pictures / "val", "--json")
    assert [len(row) for row in done.json["embeddings"]] == [done.json["dim"]] * 6
    assert run("embed", "runs/one", pictures / "val", "--out", "features").code == 0
    with np.load(tmp_path / "features.npz") as saved:
        assert saved["features"].shape[0] == len(saved["inputs"]) == 6
    done = run("embed", "runs/one", pictures / "val", "--out", "features.npz")
    assert done.code == 1
    assert "--overwrite" in done.err


def test_weights_head_and_architecture_can_be_chosen(run: Callable[..., Done], pictures: Path, tmp_path: Path) -> None:
    options = [
        "--recipe",
        "full",
        "--epochs",
        1,
        "--head",
        "mlp",
        "--head-set",
        "hidden=8",
        "--weights",
        "none",
        "--model-set",
        "in_chans=3",
    ]
    done = run("train", "zoo/glyphnet", pictures, *options, "--out", "run", "--quiet")
    assert done.code == 0, done.err
    model = zoo.load(tmp_path / "run")
    assert (model.head_name, model.head_options, model.inputs.channels) == ("mlp", {"hidden": 8}, 3)
    done = run("train", "zoo/glyphnet", pictures, "--head-set", "hiden=8", "--head", "mlp", "--out", "other", "--quiet")
    assert done.code == 2
    assert "hidden" in done.err
    done = run("train", "zoo/glyphnet", pictures, "--out", "run", "--quiet")
    assert done.code == 1
    assert "run" in done.err


@pytest.fixture(scope="module")
def folds(pictures: Path) -> Path:
    """A table with folds, whose columns have names of their own; every patient has two pictures in one fold."""
    files = sorted((pictures / "train").glob("*/*.png"))
    rows = [f"{file},{file.parent.name},{file.parent.name}{int(file.stem) // 2},{int(file.stem) // 2}" for file in files]
    (pictures / "folds.csv").write_text("\n".join(["file,label,patient_id,group_fold", *rows]) + "\n")
    return pictures / "folds.csv"


FOLDS = "file_name=file,group=patient_id,split=group_fold"


def test_a_fold_is_held_out_and_the_run_keeps_how(run: Callable[..., Done], folds: Path, tmp_path: Path) -> None:
    line = ["train", "zoo/glyphnet", folds, "--columns", FOLDS, "--recipe", "linear-probe", "--epochs", 1, "--quiet"]
    done = run(*line, "--valid-split", 0, "--out", "run")
    assert done.code == 0, done.err
    told = json.loads((tmp_path / "run/run.json").read_text())
    assert (told["data"]["train"]["samples"], told["data"]["valid"]["samples"]) == (8, 4)
    assert told["config"]["valid_split"] == "0"
    assert told["config"]["columns"] == {"file_name": "file", "group": "patient_id", "split": "group_fold"}
    done = run(*line, "--out", "other")
    assert done.code == 1
    assert "such as --valid-split 0" in done.err


def test_tables_that_were_split_by_fold_train_as_they_are(run: Callable[..., Done], folds: Path, tmp_path: Path) -> None:
    tables = open_train_valid(folds, columns=settings.columns(FOLDS), valid_split="0")
    model = zoo.get("zoo/glyphnet").adapt(num_classes=2)
    model.fit(*tables, recipe="linear-probe", epochs=1, quiet=True, out=tmp_path / "run")
    assert json.loads((tmp_path / "run/run.json").read_text())["data"]["valid"]["samples"] == 4


@pytest.mark.parametrize(
    ("out", "facts"),
    [
        (["--out", "there.npz"], ["'there.npz' exists", "--overwrite"]),
        (["--out", "folder.npz", "--overwrite"], ["is a folder"]),
        (["--out", "there.npz/below/file"], ["cannot be written", "--out"]),
        ([], ["--out FILE", "--json"]),
    ],
)
def test_where_features_go_is_checked_before_any_is_computed(
    out: list[str], facts: list[str], run: Callable[..., Done], tmp_path: Path
) -> None:
    (tmp_path / "there.npz").write_text("kept")
    (tmp_path / "folder.npz").mkdir()
    done = run("embed", "no/model", "no-picture.png", *out)  # either would be an error of its own, told later
    assert done.code == (1 if out else 2)
    assert all(fact in done.err for fact in facts), done.err
    assert (tmp_path / "there.npz").read_text() == "kept"


def test_the_types_of_a_config_are_checked_by_name(run: Callable[..., Done], tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("in_chans = 'three'\nresume = 'yes'\nhead = 3\nout = 1\nweights = false\n[columns]\ngroup = 'g'\n")
    done = run("train", "x", "data", "--config", config)
    assert done.code == 2
    facts = [
        "in_chans is 'three'; it must be a number",
        "resume is 'yes'; it must be true or false",
        "head is 3; it must be text",
        "out is 1",
    ]
    assert all(fact in done.err for fact in facts), done.err
    assert "weights is" not in done.err
    config.write_text("[columns]\ngroup = true\n")
    assert "columns.group is True" in run("train", "x", "data", "--config", config).err


INTERRUPTED = """
    import os, signal, threading, time
    from pathlib import Path
    from zoo.cli import main

    def interrupt():
        record = Path("run/metrics.jsonl")
        while not (record.is_file() and record.stat().st_size):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    main({line})
"""


def test_an_interrupted_training_leaves_a_checkpoint_and_can_go_on(run: Callable[..., Done], pictures: Path, tmp_path: Path) -> None:
    line = ["train", "zoo/glyphnet", str(pictures), "--recipe", "full", "--epochs", "12", "--batch-size", "4", "--out", "run", "--quiet"]
    done = run_python(INTERRUPTED.format(line=line), cwd=tmp_path, warm=True)
    assert (done.returncode, done.stdout) == (130, ""), done.stderr
    assert "checkpoint" in done.stderr
    assert "Traceback" not in done.stderr
    record = tmp_path / "run/metrics.jsonl"
    assert any((tmp_path / "run/checkpoint").iterdir())
    assert len(record.read_text().splitlines()) < 12
    again = run(*line, "--resume")
    assert again.code == 0, again.err
    assert len(record.read_text().splitlines()) == 12


def test_a_training_without_validation_takes_all_of_the_data(run: Callable[..., Done], pictures: Path, tmp_path: Path) -> None:
    done = run("train", "zoo/glyphnet", pictures, "--no-valid", "--epochs", "2", "--out", "whole")
    assert done.code == 0, done.err
    assert done.out.splitlines() == ["whole"]
    told = json.loads((tmp_path / "whole/run.json").read_text())["data"]
    assert told["valid"] is None
    again = run("train", "zoo/glyphnet", pictures, "--no-valid", "--epochs", "2", "--out", "whole", "--resume")
    assert "is finished, with nothing left to train" in again.err
    refused = run("train", "zoo/glyphnet", pictures, "--no-valid", "--set", "patience=2", "--set", "schedule=plateau")
    assert "patience, --set schedule=plateau: decided by a metric, and there are no validation data" in refused.err
    refused = run("train", "zoo/glyphnet", pictures, "--no-valid", "--set", "allow_leak=true")
    assert "allow_leak: meant for a division of the data" in refused.err
    assert "not allowed with" in run("train", "zoo/glyphnet", pictures, "--no-valid", "--valid", pictures).err


def test_classes_can_be_left_out_when_it_is_asked_for(run: Callable[..., Done], folds: Path, tmp_path: Path) -> None:
    (tmp_path / "three.csv").write_text(folds.read_text() + folds.read_text().partition("\n")[2].replace(",dark,", ",grey,", 3))
    line = [
        "train",
        "zoo/glyphnet",
        "three.csv",
        "--columns",
        FOLDS,
        "--valid-split",
        0,
        "--recipe",
        "linear-probe",
        "--epochs",
        1,
        "--quiet",
    ]
    done = run(*line, "--classes", "light,dark", "--out", "run")
    assert done.code == 1
    assert "'grey'" in done.err
    assert "--drop-other-classes" in done.err
    done = run(*line, "--classes", "light,dark", "--drop-other-classes", "--out", "run")
    assert done.code == 0, done.err
    assert zoo.load(tmp_path / "run").labels == ("light", "dark")
    told = json.loads((tmp_path / "run/run.json").read_text())
    assert told["config"]["drop_other_classes"] is True
    assert sum(part["samples"] for part in told["data"].values()) == 21
    line = ["eval", "run", "three.csv", "--columns", FOLDS, "--json"]
    assert "'grey'" in run(*line).err
    assert "accuracy" in run(*line, "--drop-other-classes").json


def test_weights_that_cannot_be_had_are_missed_before_torch_is_imported(tmp_path: Path) -> None:
    pytest.importorskip("zoo_timm")
    (tmp_path / "data.csv").write_text("file_name,label\n")
    code = "import sys\nfrom zoo.cli import main\ntry:\n    main()\nfinally:\n    print('torch' in sys.modules)"
    line = [sys.executable, "-c", code, "train", "resnet18", "data.csv"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "timm/resnet18.a1_in1k" in done.stderr
    assert done.stdout.strip() == "False"


def test_set_is_for_options_without_a_flag_of_their_own(run: Callable[..., Done], pictures: Path) -> None:
    done = run("train", "zoo/glyphnet", pictures, "--epochs", "1", "--set", "epochs=2", "--set", 'columns={"label":"x"}', "--set", "out=x")
    assert done.code == 2
    assert "--set epochs: --epochs is given as well" in done.err
    assert "--set columns: give it as --columns" in done.err
    assert "--set out: give it as --out" in done.err


def test_a_run_that_is_not_finished_is_told_from_no_folder(run: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half/run.json").write_text("{}")
    assert "the run in this folder is not finished" in run("show", tmp_path / "half").err


def test_names_of_files_are_not_taken_for_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.cli.commands.using import _refuse_files

    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.xlsx").write_text("{}")
    for words in (["texts.xlsx"], ["a text", "texts.jsonl"], ["a.csv", "b.csv"]):
        with pytest.raises(OptionError, match="texts are read from one"):
            _refuse_files(words)
    _refuse_files(["a.csv"])
    _refuse_files(["a text", "x" * 5000])


def test_tables_without_endings_and_with_label_columns_train_and_are_measured(
    run: Callable[..., Done], pictures: Path, tmp_path: Path
) -> None:
    files = sorted((pictures / "train").glob("*/*.png"))
    for file in files:
        (tmp_path / "all").mkdir(exist_ok=True)
        (tmp_path / "all" / f"{file.parent.name}_{file.name}").write_bytes(file.read_bytes())
    rows = [f"{file.parent.name}_{file.stem},{int(file.parent.name == 'dark')},{int(file.parent.name == 'light')}" for file in files]
    (tmp_path / "x.csv").write_text("\n".join(["image_id,dark,light", *rows]) + "\n")
    rows[0] = rows[0].replace(",0", ",-1").replace(",1", ",")
    (tmp_path / "y.csv").write_text("\n".join(["image_id,dark,light", *rows]) + "\n")
    common = ["--recipe", "linear-probe", "--epochs", 1, "--label-columns", "dark,light", "--no-valid"]
    done = run("train", "zoo/glyphnet", "x.csv", "--root", "all", "--out", "one", *common)
    assert (done.code, zoo.load("one").labels) == (0, ("dark", "light"))
    config = json.loads(Path("one/run.json").read_text())["config"]
    assert (config["label_columns"], config["root"]) == (["dark", "light"], "all")
    measured = run("eval", "one", "x.csv", "--root", "all", "--label-columns", "dark,light", "--json")
    assert measured.json["accuracy"] >= 0.5
    assert [row["label"] for row in run("predict", "one", "x.csv", "--root", "all", "--json").json]
    several = run("train", "zoo/glyphnet", "y.csv", "--root", "all", "--out", "two", "--task", "multi-label", *common)
    assert "--uncertain mask" in several.err
    assert "--uncertain" in several.err
    labels = ["--task", "multi-label", "--uncertain"]
    masked = run("train", "zoo/glyphnet", "y.csv", "--root", "all", "--out", "flag", *labels, "mask", *common)
    assert (masked.code, json.loads(Path("flag/run.json").read_text())["config"]["uncertain"]) == (0, "mask")
    wrong = run("train", "zoo/glyphnet", "y.csv", *labels, "msk", *common)
    assert "uncertain is 'msk'; it must be 'mask'" in wrong.err
    (tmp_path / "c.toml").write_text(
        'label_columns = ["light", "dark"]\nroot = "all"\ntask = "multi-label"\nuncertain = "mask"\nvalid = false\n'
    )
    assert run("train", "zoo/glyphnet", "y.csv", "--config", "c.toml", "--out", "two", "--epochs", 1).code == 0
    record = json.loads(Path("two/run.json").read_text())
    assert sum(record["data"]["train"]["missing_labels"].values()) == 2
    assert run("eval", "two", "y.csv", "--root", "all", "--label-columns", "dark,light", "--uncertain", "mask", "--json").code == 0


def test_control_characters_of_names_do_not_reach_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "red\x1b[2J\u202edne"
    for label in (hostile, "blue"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(6):
            Image.new("L", (32, 32), 20 * number + len(label)).save(tmp_path / "data" / label / f"{number}.png")
    run = str(tmp_path / "run")
    for words in (["train", "zoo/glyphnet", "data", "--epochs", "1", "--out", run], ["predict", run, "data"], ["predict", run, hostile]):
        with pytest.raises(SystemExit):
            main([word if word != "data" else str(tmp_path / "data") for word in words])
    told = "".join(capsys.readouterr())
    assert r"red\x1b[2J\u202edne" in told
    assert "\x1b" not in told
    assert "\u202e" not in told


def test_a_page_is_wrapped_to_the_terminal_only(run: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    narrow = run("show", "zoo/glyphnet").out
    assert max(map(len, narrow.splitlines())) <= 50
    monkeypatch.delenv("COLUMNS")
    assert " ".join(run("show", "zoo/glyphnet").out.split()) == " ".join(narrow.split())
