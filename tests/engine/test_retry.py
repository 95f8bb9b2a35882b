from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.errors import CorruptInputError

pytestmark = pytest.mark.usefixtures("toys")


def test_a_run_that_failed_on_a_sample_can_be_retried_in_the_same_folder(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for index in range(4):
            Image.fromarray(np.full((16, 16, 3), 40 * index, dtype=np.uint8)).save(folder / f"{index}.png")
    damaged = tmp_path / "data" / "ant" / "0.png"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:30])
    model = zoo.get("toy/net", weights=False).adapt(2)
    with pytest.raises(CorruptInputError, match=r"0\.png"):
        model.fit(tmp_path / "data", valid=False, epochs=2, out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    damaged.write_bytes(whole)
    assert model.fit(tmp_path / "data", valid=False, epochs=2, out=tmp_path / "run", quiet=True).history
