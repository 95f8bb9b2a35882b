"""AutoGluon's multimodal predictor on the tables of a folder; for the interpreter of an environment of its own.

Its PyTorch and transformers are older than ours, so it cannot share our environment: ``pip install autogluon.multimodal`` into another
one, and give the interpreter of that to ``regret.py --autogluon``, which runs this file. The folder has ``train.csv`` and ``test.csv``
with the columns ``input`` and ``label``, and ``checkpoint``, a folder of weights in the layout of transformers or timm. All settings
are AutoGluon's own but for the backbone, the CPU and the seed; it holds out validation data from ``train.csv`` by itself. Prints JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from pathlib import Path

import pandas as pd
import torch

warnings.filterwarnings("ignore")


def main(folder: Path, reads: str, seed: int) -> None:
    from autogluon.multimodal import MultiModalPredictor  # type: ignore[import-not-found]  # in an environment of its own

    torch.set_num_threads(1)
    train, test = (pd.read_csv(folder / name, dtype=str, keep_default_na=False) for name in ("train.csv", "test.csv"))
    model = {"text": "hf_text", "image": "timm_image"}[reads]
    settings = {
        "model.names": [model],
        f"model.{model}.checkpoint_name": str(folder / "checkpoint"),
        "env.accelerator": "cpu",
        "env.num_gpus": 0,
        "env.num_workers": 0,
        "env.num_workers_inference": 0,
        "env.precision": "32",
    }
    with tempfile.TemporaryDirectory() as out:
        predictor = MultiModalPredictor(label="label", problem_type="classification", path=f"{out}/run", verbosity=0)
        kinds = {"input": "image_path" if reads == "image" else "text"}
        start = time.process_time()
        predictor.fit(train, hyperparameters=settings, column_types=kinds, seed=seed)
        seconds = time.process_time() - start
        guessed = predictor.predict(test[["input"]], as_pandas=False)
    accuracy = sum(one == other for one, other in zip(map(str, guessed), test["label"], strict=True)) / len(test)
    print(json.dumps({"accuracy": accuracy, "seconds": seconds}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
