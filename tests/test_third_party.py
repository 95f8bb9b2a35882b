"""A plugin that nobody here knows: built as a wheel outside the workspace and installed beside zoo's own wheel."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest
from PIL import Image

from tests.clean import CORE, PROJECTS, Environment, build_wheel, make_environment
from zoo.cli.commands.new_plugin import write_plugin

DECLARATION = '''
    """Odd in what it may be odd in: a bare parameter, tied weights, stages out of order and under other names."""

    import zoo

    LAYERS = {
        "input": ["gain", "parts.tokens"],
        "late": ["parts.zebra", "parts.shared"],
        "early": "parts.aardvark.*",
        "end": ["norm", "decoder"],
    }

    @zoo.hookimpl
    def zoo_backbones():
        yield zoo.BackboneSpec(
            name="odd/net", build="odd_nets.net:build", layers=LAYERS, inputs=zoo.Image(size=(16, 24), mean=(0.5,), std=(0.2,)),
            features=zoo.Features(dim=8, layout="BND"), parameters=1000, options={"twist": 2},
        )
'''
NETWORK = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, in_chans, twist):
            super().__init__()
            self.norm = nn.LayerNorm(8)
            self.parts = nn.ModuleDict({
                "aardvark": nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)]),
                "zebra": nn.Linear(8, 8),
                "shared": nn.Linear(8, 8),
                "tokens": nn.Conv2d(in_chans, 8, 8, stride=8),
            })
            self.decoder = nn.Linear(8, 8, bias=False)
            self.decoder.weight = self.parts["shared"].weight
            self.gain = nn.Parameter(torch.ones(8))
            self.twist = twist

        def forward(self, x):
            x = self.parts["tokens"](x).flatten(2).transpose(1, 2) * self.gain
            x = x + self.parts["shared"](self.parts["zebra"](x)).tanh()
            for layer in self.parts["aardvark"]:
                x = x + layer(x).tanh() * self.twist
            return self.decoder(self.norm(x))

    def build(in_chans=1, twist=1):
        return Net(in_chans, twist)
"""
PROJECT = """
    [build-system]
    requires = ["hatchling"]
    build-backend = "hatchling.build"

    [project]
    name = "odd-nets"
    version = "3.1"
    dependencies = ["transfer-zoo>=0.1"]

    [project.entry-points.zoo]
    oddities = "odd_nets"

    [project.entry-points."zoo.api"]
    1 = "odd_nets"

    [tool.hatch.build.targets.wheel]
    packages = ["odd_nets"]
"""
USE = """
    import contextlib, io, json
    import torch, zoo
    from zoo.cli import main
    from zoo.cli.output.stdout import format_parameters
    from zoo.testing import check_backbone

    def command(*words):
        with contextlib.redirect_stdout(io.StringIO()) as told:
            try:
                main(words)
            except SystemExit as stop:
                assert not stop.code, (words, stop.code)
        return told.getvalue()

    layers = command("layers", "odd/net", "--freeze", "late")
    model = zoo.get("odd/net").adapt(num_classes=2)
    count = format_parameters(sum(p.numel() for p in model.backbone.parameters()))  # a tied weight is one parameter
    model.fit("photos", "photos", recipe="full", epochs=2, out="run", quiet=True, allow_leak=True)
    model.save("saved")
    twin = zoo.load("saved")
    x = torch.randn(2, 1, 16, 24)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), twin.eval()(x))
    assert twin.backbone.decoder.weight is twin.backbone.parts["shared"].weight, "no longer tied"
    told = {"layers": layers, "count": count, "checks": check_backbone("odd/net"), "zoo": zoo.__file__}
    print(json.dumps(told | {"eval": json.loads(command("eval", "run", "photos", "--json"))}))
"""


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("third")
    odd = write(folder / "odd", {"pyproject.toml": PROJECT, "odd_nets/__init__.py": DECLARATION, "odd_nets/net.py": NETWORK})
    (folder / "wheels").mkdir()
    wheels = [build_wheel(project, folder / "wheels") for project in (PROJECTS[CORE], odd)]
    return make_environment(folder / "venv", wheels)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for label, value in (("dark", 40), ("light", 200)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(6):
            Image.new("L", (32, 32), value + number).save(tmp_path / "photos" / label / f"{number}.png")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def test_an_odd_plugin_from_elsewhere_is_listed_shown_trained_saved_and_loaded(environment: Environment, desk: Path) -> None:
    rows = json.loads(environment.run("zoo", "list", "--json", cwd=desk).stdout)
    assert [(row["distribution"], row["version"]) for row in rows if row["name"] == "odd/net"] == [("odd-nets", "3.1")]
    assert "twist=2" in environment.run("zoo", "show", "odd/net", cwd=desk).stdout
    told = json.loads(environment.run_warm(textwrap.dedent(USE), cwd=desk).stdout)
    layers = told["layers"].splitlines()
    assert [line.split()[1] for line in layers[1:6]] == ["input", "late", "early.0", "early.1", "end"]
    assert f"5 groups, {told['count']} parameters" in told["layers"]
    assert told["checks"] == 12
    assert "accuracy" in json.dumps(told["eval"])
    assert Path(told["zoo"]).is_relative_to(environment.folder / "lib")


@pytest.mark.parametrize("name", ["zoo-acme-labs", pytest.param("fresh", marks=pytest.mark.sweep)])
def test_a_new_plugin_passes_its_own_test_at_once(name: str, environment: Environment, desk: Path) -> None:
    environment.run("zoo", "new-plugin", name, cwd=desk)
    short = name.removeprefix("zoo-")
    environment.install("-e", desk / f"zoo-{short}")
    assert f"{short}/tinynet" in environment.run("zoo", "list", f"{short}/*", cwd=desk).stdout
    checked = json.loads(environment.run("zoo", "plugins", "check", short, "--json", cwd=desk).stdout)
    assert [(row["name"], row["status"], row["changes"]) for row in checked] == [(short, "ok", [])]
    run_tests = "import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    done = environment.run_warm(run_tests, "-q", "-p", "no:cacheprovider", cwd=desk / f"zoo-{short}")
    assert "1 passed" in done.stdout


@pytest.mark.parametrize("name", ["Zoo Acme", "../up", "zoo-", "a--b", "1st"])
def test_a_name_that_no_distribution_can_have_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="cannot be the name of a distribution"):
        write_plugin(name)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    with pytest.raises(FileExistsError, match="choose another --dir"):
        write_plugin("acme", tmp_path)
