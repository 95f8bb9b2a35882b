"""The core without its extras: it trains and predicts on folders, and what needs an extra names it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.clean import ROOT
from tests.warm_process import run_warm
from zoo.errors import MissingExtraError
from zoo.util.extras import MODULES, require_extra

ABSENT = sorted(module for modules in MODULES.values() for module in modules)
WITHOUT = f"""
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {ABSENT} else super().find_spec(name, path, target)

sys.meta_path = [Without if finder is PathFinder else finder for finder in sys.meta_path]
"""
WORK = """
import json
import logging
from pathlib import Path
import zoo
from zoo.data.open import open_data
from zoo.engine.output.confusion import write_confusion

logging.basicConfig(level=logging.INFO)
model = zoo.get("zoo/glyphnet").adapt(num_classes=2)
run = model.fit("data/train", "data/val", epochs=2, image_size=32, out="run", quiet=True)
found = zoo.load("run").evaluate("data/val")
told = {}
for name, needing in {
    "csv": lambda: open_data("table.csv"),
    "out": lambda: model.predict_to_file("data/val", "out.csv"),
    "confusion": lambda: write_confusion(Path("confusion.png"), *found.confusion()),
    "lora": lambda: zoo.get("zoo/glyphnet").adapt(2).fit("data/train", recipe="lora", epochs=1, out="lora", quiet=True),
}.items():
    try:
        needing()
    except zoo.ZooError as error:
        told[name] = [type(error).__name__, str(error)]
loaded = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps({"labels": model.predict(["data/val/dark/0.png"]), "accuracy": found["accuracy"], "told": told, "loaded": loaded}))
"""


def test_the_core_trains_evaluates_and_predicts_on_folders_without_any_extra(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for split, number in (("train", 6), ("val", 3)):
        for index, label in enumerate(("dark", "light")):
            (tmp_path / "data" / split / label).mkdir(parents=True)
            for i in range(number):
                pixels = (random.integers(0, 80, (32, 32)) + 150 * index).astype("uint8")
                Image.fromarray(pixels).save(tmp_path / "data" / split / label / f"{i}.png")
    (tmp_path / "table.csv").write_text("file_name,label\ndata/val/dark/0.png,dark\n")
    done = run_warm(WITHOUT + WORK, [], env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found["labels"]) <= {"dark", "light"}
    assert 0 <= found["accuracy"] <= 1
    assert not set(ABSENT) & set(found["loaded"])
    assert not (tmp_path / "run" / "curves.png").exists()
    assert done.stderr.count("curves.png' is left out: a picture needs matplotlib: pip install matplotlib (the extra 'plots')") == 1
    assert {name for name, _ in found["told"].values()} == {"MissingExtraError"}
    extras = {"csv": "tables", "out": "tables", "confusion": "plots", "lora": "lora"}
    assert found["told"].keys() == extras.keys()
    for name, extra in extras.items():
        assert found["told"][name][1].endswith(f"(the extra {extra!r})")
    assert "the table 'table.csv' needs pandas and pyarrow" in found["told"]["csv"][1]
    assert not list(tmp_path.glob("*confusion*"))


def test_an_extra_that_is_installed_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    require_extra("tables", "it")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"it needs pyarrow: pip install pyarrow \(the extra 'tables'\)"):
        require_extra("tables", "it")
