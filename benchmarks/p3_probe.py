"""P3: a linear probe of 20 epochs, against one bare inference pass and against 10 frozen epochs of Hugging Face Trainer.

MobileNetV2 with its real ImageNet weights, 244 photos of ants and bees from their JPEG files at 160 pixels, batch 32, float32.
All three use the same transform. Seconds are CPU seconds of one thread, without imports and the building of the model.

Run: python benchmarks/p3_probe.py --data ../shared/data
"""

from __future__ import annotations

import argparse
from pathlib import Path

from side_by_side import alternate, needed, process_result, report

COMMON = """
import json, logging, random, sys, tempfile, time, warnings
from pathlib import Path
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
import torch
from torch import nn
import zoo
from zoo.data.images.transforms import eval_transform
from zoo.registry.registry import use_registry
torch.set_num_threads(1)
data = Path(sys.argv[1])
use_registry(files=[data / "registry.toml"])
folder = data / "images" / "hymenoptera" / "train"
paths = sorted(folder.glob("*/*.jpg"))
model = zoo.get("local/mobilenetv2_100").adapt(2)
prepare = eval_transform(zoo.Image(size=160, mean=model.inputs.mean, std=model.inputs.std, crop=model.inputs.crop))
class Photos(torch.utils.data.Dataset):
    def __len__(self): return len(paths)
    def __getitem__(self, i): return prepare(paths[i], random.Random(0)), int(paths[i].parent.name == "bees")
"""
MEASURE = """
start = time.process_time()
run()
print(json.dumps({"seconds": time.process_time() - start}))
"""
ZOO = """
def run():
    with tempfile.TemporaryDirectory() as out:
        model.fit(folder, valid=False, recipe="linear-probe", epochs=20, image_size=160, out=Path(out) / "run", quiet=True)
"""
BARE = """
def run():
    model.eval()
    with torch.inference_mode():
        for x, _ in torch.utils.data.DataLoader(Photos(), batch_size=64):
            model(x)
"""
TRAINER = """
from peers import ForTrainer, train_by_trainer
def run():
    model.backbone.requires_grad_(False)
    train_by_trainer(ForTrainer(model), Photos(), num_train_epochs=10, per_device_train_batch_size=32, learning_rate=3e-3)
"""
RUNS = {"zoo": ZOO, "bare pass": BARE, "Trainer": TRAINER}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--repeats", type=int, default=3)
    peers = [name for name in RUNS if name != "zoo"]
    parser.add_argument("--beside", nargs="*", default=peers, choices=peers, metavar="RUN", help="; ".join(peers))
    arguments = parser.parse_args()
    data = needed(Path(arguments.data))

    def runner(body: str) -> float:
        return process_result(COMMON + body + MEASURE, str(data))["seconds"]

    chosen = {name: RUNS[name] for name in ("zoo", *arguments.beside)}
    measured = alternate({name: lambda body=body: runner(body) for name, body in chosen.items()}, arguments.repeats)  # type: ignore[misc]
    report("P3: CPU seconds of a linear probe, 20 epochs", measured, ours="zoo")


if __name__ == "__main__":
    main()
