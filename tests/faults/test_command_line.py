"""C1 to C6: what people and scripts can give a command line: configs, names, output paths, environments."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.faults.fake_dist import ROOT, run_python
from zoo.cli.app import main
from zoo.cli.arguments import settings
from zoo.errors import OptionError, RegistryFileError
from zoo.plugins.policy import read_user_file, user_file
from zoo.registry.registry import use_registry
from zoo.registry.registry_files import read_files

# Each with what the message must say.
CONFIGS = {
    "epoch = 3": "did you mean 'epochs'",
    "batchsize = 4": "did you mean 'batch_size'",
    "[training]\nlr = 0.1": "there is no key 'training'",
    "epochs = 'three'": "epochs is 'three'",
    "epochs = 2.5": "epochs is 2.5",
    "epochs = 010": "line 1",
    "epochs = 1:30": "line 1",
    "lr = nan": "lr is nan",
    "lr = inf": "lr is inf",
    "lr = -0.1": "lr is -0.1",
    "lr = 0": "lr is 0",
    "lr = true": "lr is True",
    "lr = [0.1]": "lr is [0.1]",
    "lr = 2020-01-01": "lr is",
    "lr = 1\nlr = 2": "overwrite",
    "lr = '": "Expected",
    "lr = '!!python/object/apply:os.system [touch marker]'": "lr is '!!python",
    "quiet = no": "line 1",
    "quiet = 'no'": "quiet is 'no'; it must be true or false",
    "resume = 1": "resume is 1; it must be true or false",
    "recipe = 'lpft'": "did you mean 'lp-ft'",
    "recipe = 3": "recipe is 3",
    "task = 'multilabel'": "did you mean 'multi-label'",
    "classes = 'a,b'": "classes is 'a,b'",
    "classes = [1, 2]": "classes is [1, 2]",
    "columns = 'a'": "columns is 'a'; it must be a table",
    "[columns]\nfile_name = true": "file_name is True",
    "in_chans = 0": "in_chans is 0",
    "in_chans = true": "in_chans is True",
    "seed = -1": "seed is -1",
    "workers = -1": "workers is -1",
    "precision = 'fp8'": "precision is 'fp8'",
    "device = 7": "device is 7",
    "augment = { flip = 2 }": "augment.flip is 2",
    "weights = true": "weights is True",
    "out = 3": "out is 3",
}
HOSTILE = {
    "NUL": b"lr = 0.1\0",
    "no UTF-8": b"recipe = '\xff'",
    "deep lists": b"lr = " + b"[" * 100_000,
    "deep tables": b"lr = " + b"{a = " * 5_000,
    "10 MB": b"# " + b"x" * 10_000_000,
    "one key of 10 MB": b"k" * 10_000_000 + b" = 1",
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    use_registry()
    yield
    use_registry()


def test_c1_a_config_with_a_fault_is_refused_by_its_key_and_what_is_meant_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    for text, told in CONFIGS.items():
        path.write_text(text)
        with pytest.raises(OptionError) as caught:
            settings.merge(path, {})
        assert told in str(caught.value), text
        assert caught.value.exit_code == 2
    for text in ("lr = 1e-3", "lr = '1e-3'", "\ufefflr = 1e-3", "lr = 1e-3\r\n"):
        path.write_bytes(text.encode())
        assert float(settings.merge(path, {})["fit"]["lr"]) == 1e-3


def test_c1_a_faulty_config_ends_before_torch_is_imported_and_prints_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("epoch = 3\n")
    code = """
        import sys
        from zoo.cli import main
        try:
            main(["train", "zoo/glyphnet", "data", "--config", "run.toml"])
        except SystemExit as stop:
            print(stop.code, "torch" in sys.modules)
    """
    done = run_python(code, cwd=tmp_path)
    assert done.stdout.split() == ["2", "False"]
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("place", ["zoo.cli.app", "zoo.cli.arguments.parser"])
def test_c1_an_interrupt_while_the_command_starts_prints_no_traceback(place: str, tmp_path: Path) -> None:
    code = f"""
        import sys
        from zoo.cli import main
        class Interrupting:
            def find_spec(self, name, *rest):
                if name == {place!r}:
                    raise KeyboardInterrupt
        sys.meta_path.insert(0, Interrupting())
        try:
            main(["list"])
        except SystemExit as stop:
            print(stop.code)
    """
    done = run_python(code, cwd=tmp_path)
    assert (done.stdout.split(), done.stderr) == (["130"], "interrupted\n")


def test_c1_nothing_is_imported_before_an_interrupt_is_caught(tmp_path: Path) -> None:
    code = """
        import sys
        from zoo.cli import main
        print(*sorted(name for name in sys.modules if name.split(".")[0] == "zoo" or name == "torch"))
    """
    assert run_python(code, cwd=tmp_path).stdout.split() == ["zoo", "zoo.cli"]


@pytest.mark.parametrize("kind", HOSTILE)
def test_c2_a_hostile_file_is_refused_at_once_wherever_toml_is_read(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "registry.toml"
    path.write_bytes(HOSTILE[kind])
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config/zoo").mkdir(parents=True)
    user_file().write_bytes(HOSTILE[kind])
    started = time.perf_counter()
    with pytest.raises(OptionError, match="cannot be read"):
        settings.merge(path, {})
    with pytest.raises(RegistryFileError, match="cannot be read"):
        read_files([path])
    with pytest.raises(RegistryFileError, match="cannot be read"):
        read_user_file()
    assert time.perf_counter() - started < 2


def test_c2_a_config_that_is_a_pipe_or_has_a_key_of_very_many_dots_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dots.toml").write_text("a." * 40_000 + "b = 1\n")
    started = time.perf_counter()
    for name in ("pipe", "dots.toml"):
        with pytest.raises(OptionError, match=f"{name}.* cannot be read"):
            settings.merge(tmp_path / name, {})
    assert time.perf_counter() - started < 2


# Command lines that fail, each with its exit code; those that can print JSON are asked to.
FAILURES = {
    "show nothing/here --json": 2,
    "list --sort nothing --json": 2,
    "list --json --block no-such-plugin": 2,
    "layers zoo/glyphnet --freeze stge1": 2,
    "train zoo/glyphnet absent": 1,
    "train zoo/glyphnet . --lr -1": 2,
    "train zoo/glyphnet . --set epoch=3": 2,
    "train zoo/glyphnet . --config absent.toml": 2,
    "predict absent .": 1,
    "eval absent .": 1,
    "embed zoo/glyphnet absent --out x.npz": 1,
    "embed zoo/glyphnet absent --out x.npy": 2,
    "predict absent . --out x.json": 2,
    "lock nothing/here": 2,
    "convert absent.pt --out x.safetensors": 1,
    "--registry absent.toml list --json": 1,
    "plugins disable no-such-plugin": 2,
}


@pytest.mark.parametrize("line", FAILURES)
def test_c3_a_command_that_fails_has_its_code_one_message_and_nothing_half_printed(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(line.split())
    out, err = capsys.readouterr()
    assert stop.value.code == FAILURES[line], err
    assert err.startswith(("error: ", "usage: "))
    assert "Traceback" not in err
    assert out == "" or json.loads(out) == []


PARTS = ["../", "/", "\0", "a" * 10_000, "\U0001f600", "\udcff", "*", "[a-", "?", "{x}", "%s", "\n", "--", "-", "=", "zoo/glyphnet", "~"]
PARTS += ["'", '"', "\\", "$HOME", " ", "é", "\u202e", "1e999", "nan", "-1", "hf/", "@", "#", ":", "C:\\", "file://", ",", "|", "true"]
COMMANDS = ["list", "show", "layers", "plugins", "train", "eval", "predict", "embed", "lock", "convert", "new-plugin"]
FLAGS = [
    "--json",
    "--set",
    "--out",
    "--columns",
    "--classes",
    "--epochs",
    "--lr",
    "--config",
    "--registry",
    "--block",
    "--weights",
    "--valid",
]


def fuzz(rounds: int, seed: int) -> tuple[set[object], list[str]]:
    """Give the command line nonsense; return the exit codes, and what was raised besides."""
    source, codes, raised = random.Random(seed), set(), []
    for _ in range(rounds):
        words = [source.choice(COMMANDS)]
        for _ in range(source.randint(0, 5)):
            words.append(source.choice(FLAGS) if source.random() < 0.3 else "".join(source.choices(PARTS, k=source.randint(1, 4))))
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                main(words)
        except SystemExit as stop:
            codes.add(stop.code)
        except Exception as error:
            raised.append(f"{[word[:40] for word in words]}: {type(error).__name__}: {str(error)[:100]}")
    return codes, raised


@pytest.mark.parametrize("rounds", [200, pytest.param(2000, marks=pytest.mark.sweep)])
def test_c4_no_name_ends_in_anything_but_a_message(rounds: int) -> None:
    codes, raised = fuzz(rounds, seed=rounds)
    assert not raised
    assert codes <= {0, 1, 2}


LONG = "a" * 10_000


@pytest.mark.parametrize(
    "words",
    [
        ["layers", LONG],
        ["lock", LONG],
        ["convert", LONG, "--out", "x"],
        ["predict", LONG, "x"],
        ["train", "zoo/glyphnet", LONG],
        ["--registry", LONG, "list"],
        ["new-plugin", LONG],
        ["train", "zoo/glyphnet", "~nobody/pictures"],
        ["--registry", "~nobody/registry.toml", "list"],
    ],
    ids=lambda words: " ".join(words)[:40],
)
def test_c4_a_name_that_no_file_can_have_is_a_usage_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code in (1, 2)
    assert capsys.readouterr().err.startswith(("error: ", "usage: "))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for split, number in (("train", 4), ("val", 2)):
        for label, base in (("dark", 0), ("light", 150)):
            (folder / split / label).mkdir(parents=True)
            for i in range(number):
                value = base + i + 20 * (split == "val")
                Image.fromarray(np.full((32, 32), value, dtype=np.uint8)).save(folder / split / label / f"{i}.png")
    return folder


def train(pictures: Path, out: Path, *more: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["train", "zoo/glyphnet", str(pictures), "--recipe", "linear-probe", "--epochs", "1", "--out", str(out), "--quiet", *more])
    return int(stop.value.code or 0)


def test_c5_an_output_is_made_where_it_can_be_and_never_written_over(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / "my runs é\u4e2d/first one"
    assert train(pictures, odd) == 0
    assert (odd / "model.safetensors").is_file()
    before = (odd / "model.safetensors").read_bytes()
    assert train(pictures, odd) == 1
    assert (odd / "model.safetensors").read_bytes() == before
    (tmp_path / "file").write_text("mine")
    assert train(pictures, tmp_path / "file") == 1
    assert "is a file" in capsys.readouterr().err
    assert train(pictures, tmp_path / "file" / "below") == 1
    assert "cannot be written" in capsys.readouterr().err
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/notes.txt").write_text("mine")
    assert train(pictures, tmp_path / "notes") == 1
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["notes.txt"]
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert train(pictures, tmp_path / "link") == 0
    assert (tmp_path / "real/model.safetensors").is_file()
    assert (tmp_path / "link").is_symlink()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert train(pictures, tmp_path / "dangling") == 1
    assert "Traceback" not in capsys.readouterr().err


def test_c5_a_folder_that_is_not_ours_to_write_is_named(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("no folder here that even root cannot write")
    assert train(pictures, Path("/proc/self/run")) == 1
    assert "cannot be written" in capsys.readouterr().err


ENVIRONMENTS = {
    "no HOME": "env -u HOME -u XDG_CONFIG_HOME {zoo} list --json",
    "HOME is gone": "env -u XDG_CONFIG_HOME HOME=/nonexistent/home {zoo} list --json",
    "closed stdin": "{zoo} list --json <&-",
    "closed stdout": "{zoo} list --json >&-",
    "everything closed": "{zoo} list --json <&- >&- 2>&-",
    "LANG=C": "env -u PYTHONUTF8 LANG=C LC_ALL=C {zoo} list --json",
    "few open files": "ulimit -n 64; {zoo} list --json",
    "umask 077": "umask 077; {zoo} list --json",
    "no TMPDIR": "TMPDIR=/nonexistent {zoo} list --json",
}


@pytest.mark.parametrize("kind", ENVIRONMENTS)
def test_c6_a_listing_works_in_a_hostile_environment(kind: str, tmp_path: Path) -> None:
    done = shell(ENVIRONMENTS[kind].format(zoo=f"{sys.executable} -m zoo.cli"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    if "closed" not in kind or kind == "closed stdin":
        assert any(row["name"] == "zoo/glyphnet" for row in json.loads(done.stdout))


def test_c6_a_training_works_with_almost_nothing(pictures: Path, tmp_path: Path) -> None:
    command = "ulimit -n 64; umask 077; env -u HOME TMPDIR=/nonexistent LANG=C LC_ALL=C {zoo} {words} <&-"
    words = f"train zoo/glyphnet {pictures} --recipe full --epochs 1 --out run --set workers=1"
    done = shell(command.format(zoo=f"{sys.executable} -m zoo.cli", words=words), tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/model.safetensors").stat().st_mode & 0o077 == 0


def shell(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(["bash", "-c", command], cwd=cwd, env=variables, capture_output=True, text=True, timeout=120, check=False)
