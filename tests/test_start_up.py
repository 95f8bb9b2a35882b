"""What the commands that use a saved model import, and what they do without while they start."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import zoo
from zoo.cli.start_up import uncollected

NEEDLESS = {"accelerate", "datasets", "huggingface_hub", "matplotlib", "pandas", "pyarrow", "scipy", "sklearn", "sympy", "timm"}
NEEDLESS |= {"torchvision", "transformers", "torch._dynamo"}
USE = f"""
import contextlib, json, sys
from zoo.cli import main
for words in (["eval", "model", "data"], ["predict", "model", "data"], ["embed", "model", "data", "--json"]):
    with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(SystemExit):
        main(words)
print(json.dumps(sorted({NEEDLESS!r} & set(sys.modules))))
from zoo.cli.start_up import uncollected
with uncollected(), contextlib.suppress(ModuleNotFoundError):
    import timm
"""


def test_eval_predict_and_embed_of_the_core_import_no_library_but_torch_and_the_exit_reports_no_leaks(tmp_path: Path) -> None:
    for label, value in (("ants", 40), ("bees", 200)):
        (tmp_path / "data" / label).mkdir(parents=True)
        Image.new("L", (32, 32), value).save(tmp_path / "data" / label / "0.png")
    zoo.get("zoo/glyphnet").adapt(2, labels=("ants", "bees")).save(tmp_path / "model")
    done = subprocess.run([sys.executable, "-c", USE], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout) == [], done.stderr
    for word in ("accuracy", "prediction", "embeddings"):
        assert word in done.stderr
    assert "leaked" not in done.stderr  # as compiled extensions say of objects that outlive them, those of timm too


def test_the_garbage_collector_is_as_before_after_a_start_also_where_it_fails() -> None:
    def fail() -> None:
        with uncollected():
            seen.append(gc.isenabled())
            raise ZeroDivisionError

    seen: list[bool] = []
    frozen = gc.get_freeze_count()
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        fail()
    assert gc.isenabled()
    assert gc.get_freeze_count() > frozen
    gc.disable()
    try:
        with pytest.raises(ZeroDivisionError):
            fail()
        assert not gc.isenabled()
    finally:
        gc.unfreeze()  # the other tests of this process collect as usual
        gc.enable()
    assert seen == [False, False]
