"""P5: seconds per step of full fine-tuning, against a bare PyTorch loop, Hugging Face Trainer, fastai and Lightning.

The same network (MobileNetV2), the same real photos at 160 pixels (decoded in advance, so that the loop is measured and not
the decoder), batch 32, AdamW at one rate, float32. A step is the cost of one more epoch, divided by its steps: each fit
runs once with one epoch and once with more, which cancels set-up and the last write. Seconds are CPU seconds of one
thread, so that other programs on the machine do not count.

Run: python benchmarks/p5_step.py --data ../shared/data
"""

from __future__ import annotations

import argparse
from pathlib import Path

from side_by_side import alternate, needed, process_result, report

COMMON = """
import json, logging, os, sys, tempfile, time, warnings
warnings.filterwarnings("ignore")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
import torch, timm
from torch import nn
folder, images, extra = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
from pathlib import Path
import random
from zoo.data.images.transforms import eval_transform
import zoo
prepare = eval_transform(zoo.Image(size=160, mean=(0.5,) * 3, std=(0.5,) * 3))
paths = sorted(Path(folder).glob("train/*/*.jpg"))
paths = paths[:: max(1, len(paths) // images)][:images]
X = torch.stack([prepare(path, random.Random(0)) for path in paths])
Y = torch.tensor([path.parent.name == "bees" for path in paths]).long()
STEPS = len(X) // 32
class Pairs(torch.utils.data.Dataset):
    def __len__(self): return STEPS * 32
    def __getitem__(self, i): return X[i], int(Y[i])
def network():
    torch.manual_seed(0)
    model = timm.create_model("mobilenetv2_100", num_classes=2, pad_type="same", bn_eps=1e-3)
    return model
"""
MEASURE = """
torch.set_num_threads(1)
def cost(epochs):
    start = time.process_time()
    run(epochs)
    return time.process_time() - start
run(1)
short = cost(1)
print(json.dumps({"seconds": (cost(1 + extra) - short) / (extra * STEPS)}))
"""
BARE = """
def run(epochs):
    model = network().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.05)
    loader = torch.utils.data.DataLoader(Pairs(), batch_size=32, shuffle=True)
    for _ in range(epochs):
        for x, y in loader:
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
"""
ZOO = """
def run(epochs):
    backbone = zoo.get("timm/mobilenetv2_100", weights=False, pad_type="same", bn_eps=1e-3)
    with tempfile.TemporaryDirectory() as out:
        backbone.adapt(2).fit(Pairs(), valid=False, recipe="full", epochs=epochs, batch_size=32, lr=3e-4, image_size=160,
                              warmup=0.0, out=Path(out) / "run", quiet=True)
"""
TRAINER = """
from peers import ForTrainer, train_by_trainer
def run(epochs):
    train_by_trainer(ForTrainer(network()), Pairs(), num_train_epochs=epochs, per_device_train_batch_size=32, learning_rate=3e-4,
                     weight_decay=0.05)
"""
FASTAI = """
from fastai.vision.all import DataLoader, DataLoaders, Learner, OptimWrapper
from functools import partial
def run(epochs):
    data = DataLoaders(DataLoader(Pairs(), bs=32, shuffle=True, num_workers=0), DataLoader(Pairs(), bs=32, num_workers=0))
    learner = Learner(data, network(), loss_func=nn.CrossEntropyLoss(), opt_func=partial(OptimWrapper, opt=torch.optim.AdamW))
    learner._do_epoch_validate = lambda *args, **kwargs: None  # the others do not validate either
    with learner.no_bar(), learner.no_logging():
        learner.fit(epochs, lr=3e-4, wd=0.05)
"""
LIGHTNING = """
import lightning
class Module(lightning.LightningModule):
    def __init__(self): super().__init__(); self.network = network()
    def training_step(self, batch, index): return nn.functional.cross_entropy(self.network(batch[0]), batch[1])
    def configure_optimizers(self): return torch.optim.AdamW(self.parameters(), lr=3e-4, weight_decay=0.05)
def run(epochs):
    quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    loop = lightning.Trainer(max_epochs=epochs, accelerator="cpu", devices=1, **quiet)
    loop.fit(Module(), torch.utils.data.DataLoader(Pairs(), batch_size=32, shuffle=True))
"""
RUNS = {"zoo": ZOO, "bare loop": BARE, "Trainer": TRAINER, "fastai": FASTAI, "Lightning": LIGHTNING}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--extra", type=int, default=2, help="epochs beyond the first")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", nargs="*", default=list(RUNS), choices=list(RUNS), metavar="ROW", help=", ".join(RUNS))
    arguments = parser.parse_args()
    photos = needed(Path(arguments.data) / "images" / "hymenoptera")
    sizes = (str(arguments.images), str(arguments.extra))

    def runner(body: str) -> float:
        return process_result(COMMON + body + MEASURE, str(photos), *sizes)["seconds"]

    measured = alternate({name: lambda body=RUNS[name]: runner(body) for name in arguments.rows}, arguments.repeats)  # type: ignore[misc]
    report("P5: CPU seconds per step of full fine-tuning", measured, ours="zoo")


if __name__ == "__main__":
    main()
