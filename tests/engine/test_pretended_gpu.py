"""The branches for CUDA, taken on the CPU: every recipe, task, objective and precision, evaluation, prediction and the plan."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo
import zoo.builtin
from tests.engine.objectives import Coral, Distilled, Momentum
from tests.engine.test_text import sentences, tagged
from tests.engine.tiny import NAMES, images, model, values
from tests.pretended_gpu import CUDA, Places, pretended_gpu
from tests.toy import ToyPlugin
from tests.toy_text import ToyTextPlugin
from tests.tuning.adapted import vit
from zoo.data.open import open_data
from zoo.engine.loading.loader import Loader
from zoo.engine.objective import supervised
from zoo.engine.options.recipes import RECIPES
from zoo.engine.runtime import device as devices
from zoo.errors import TrainingError
from zoo.registry.registry import Registry, use_registry

pytestmark = pytest.mark.filterwarnings("ignore:.*pin_memory:UserWarning")
FIT: dict[str, Any] = {"batch_size": 8, "lr": 1e-2, "epochs": 2, "quiet": True, "workers": 0}
DATA = images(16), images(8, seed=1)


@pytest.fixture(autouse=True)
def _texts() -> Iterator[None]:
    use_registry(Registry(plugins=[zoo.builtin, ToyPlugin(), ToyTextPlugin()], files=[]))
    yield
    use_registry()


@pytest.fixture(params=[pytest.param(True, id="bf16"), pytest.param(False, id="fp32", marks=pytest.mark.sweep)])
def gpu(request: pytest.FixtureRequest) -> Iterator[Places]:
    with pretended_gpu(bf16=request.param) as places:
        yield places


@pytest.fixture
def plain_gpu() -> Iterator[Places]:
    with pretended_gpu(bf16=False) as places:
        yield places


def fit(net: Any, out: Path, *data: Any, **options: Any) -> Any:
    run = net.fit(*(data or DATA), out=out, **FIT | options)
    assert all(np.isfinite(record.get("train_loss", 0.0)) for record in run.history)
    assert next(net.parameters()).device.type == "cpu", "the model came back"
    return run


SWEPT = {"bitfit", "gradual", "linear-probe", "lp-ft", "dora", "loha", "lokr", "adalora", "prefix", "adaptformer"}  # like others here
OF_TRANSFORMERS = {"adaptformer", "prompt", "prefix"}
SOLVED_ALIKE = {"layer-decay", "ia3", "ssf", "adapter", "prompt"}  # in their first phase, as that of lora, so trained here


@pytest.mark.parametrize("recipe", [pytest.param(name, marks=[pytest.mark.sweep] * (name in SWEPT)) for name in RECIPES])
def test_every_recipe_trains_on_it(recipe: str, gpu: Places, tmp_path: Path) -> None:
    if recipe in OF_TRANSFORMERS:
        use_registry()  # with the installed plugins
    net = vit(tmp_path) if recipe in OF_TRANSFORMERS else model()
    fit(net, tmp_path, recipe=recipe, solve_head=recipe not in SOLVED_ALIKE)
    net.evaluate(DATA[1])
    assert len(net.predict(DATA[1][0])) == 8
    assert net.predict_proba(DATA[1][0]).shape == (8, 3)
    assert net.embed(DATA[1][0]).shape == (8, net.spec.features.dim)


OPTIONS: dict[str, dict[str, Any]] = {
    "averages": {"recipe": "lp-ft", "ema": 0.9, "average": 0.5, "wise_ft": 0.5},
    "penalties": {"recipe": "full", "l2_sp": 0.1, "delta": 0.1, "bss": 0.1},
    "mixing": {"recipe": "full", "augment": "light", "mixup": 0.2, "cutmix": 1.0, "class_weights": "balanced"},
    "drop": {"recipe": "full", "drop_path": 0.2, "dropout": 0.1, "recompute": True},
    "views": {"recipe": "top", "augment": "light", "views": 2},
    "auto": {"recipe": "full", "lr": "auto", "batch_size": "auto"},
    "accumulated": {"recipe": "full", "accumulate": 2, "clip_grad": 0.5},
    "plain optimizer": {"recipe": "full", "optimizer": "adagrad"},
    "focal": {"recipe": "full", "loss": "focal", "class_weights": {"blue": 1, "green": 2, "red": 3}},
    "own loss": {"recipe": "full", "loss": lambda x, y: torch.nn.functional.cross_entropy(x, y, reduction="none")},
    "own metric": {"recipe": "linear-probe", "metrics": {"first": lambda y, p: float(p[0, 0])}},
    "plateau": {"recipe": "full", "schedule": "plateau", "patience": 2},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_that_computes_does_so_there(name: str, gpu: Places, tmp_path: Path) -> None:
    fit(model(), tmp_path, **OPTIONS[name])


@pytest.mark.parametrize("task", ["multi-label", "regression", "texts", "words"])
@pytest.mark.parametrize("recipe", [pytest.param("full", marks=pytest.mark.sweep), "lp-ft"])
def test_every_task_trains_on_it(task: str, recipe: str, gpu: Places, tmp_path: Path) -> None:
    pixels, labels = images(16)
    if task == "multi-label":
        net, data = model(3, task=task), (pixels, [[int(label == other) for other in NAMES] for label in labels])
    elif task == "regression":
        net, data = model(1, task=task), (pixels, [float(NAMES.index(label)) for label in labels])
    elif task == "texts":
        net, data = zoo.get("toy/text", weights=False).adapt(2), sentences(16)
    else:
        net, data = zoo.get("toy/text", weights=False).adapt(3, task="token-classification"), tagged(16)
    fit(net, tmp_path, data, data, recipe=recipe)
    net.evaluate(data)
    assert len(net.predict(data[0])) == 16


@pytest.mark.parametrize("name", ["distilled", "coral", "momentum"])
@pytest.mark.parametrize("recipe", ["full", pytest.param("lp-ft", marks=pytest.mark.sweep), "top"])
def test_every_objective_trains_on_it(name: str, recipe: str, gpu: Places, tmp_path: Path) -> None:
    target = open_data(images(18, seed=5)[0] // 2, labelled=False)
    teacher = model(seed=7)
    make = {"distilled": lambda base: Distilled(base, teacher), "coral": lambda base: Coral(base, target), "momentum": Momentum}[name]
    fit(model(), tmp_path, objective=make, recipe=recipe, augment="light" if recipe == "full" else "none")
    assert next(teacher.parameters()).device.type == "cpu"


def test_a_run_goes_on_there(gpu: Places, tmp_path: Path) -> None:
    net = model()
    fit(net, tmp_path, recipe="lp-ft")
    again = model()
    again.fit(*DATA, out=tmp_path, resume=True, **FIT, recipe="lp-ft")
    assert all(torch.equal(values(net)[name], value) for name, value in values(again).items())


def test_in_fp32_it_computes_what_the_cpu_does(tmp_path: Path) -> None:
    nets = model(), model()
    with pretended_gpu(bf16=False):
        fit(nets[0], tmp_path / "cuda", recipe="lp-ft")
    fit(nets[1], tmp_path / "cpu", recipe="lp-ft")
    gap = max(float((values(nets[0])[name] - value).abs().max()) for name, value in values(nets[1]).items())
    assert gap < 1e-5  # fused optimizers round otherwise


def test_the_steps_of_an_epoch_wait_for_the_gpu_only_now_and_then(plain_gpu: Places, tmp_path: Path) -> None:
    waits: list[int] = []
    original = supervised.Supervised.weight

    def counted(self: Any, batch: Any) -> Any:
        # torch's fused AdamW moves its scale to where its parameters really are, which is no wait on a GPU.
        waits.append(sum(kind.startswith("aten") for kind in plain_gpu.waits))
        return original(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervised.Supervised, "weight", counted)
        model().fit(images(240), False, out=tmp_path, recipe="full", **FIT | {"epochs": 1, "augment": "none"})
    steady = [after - before for before, after in itertools.pairwise(waits[2:])]
    assert sorted(steady)[len(steady) // 2] == 0, steady


def test_a_plan_is_made_there(plain_gpu: Places) -> None:
    told = model().plan(*DATA, recipe="lp-ft", **{key: value for key, value in FIT.items() if key != "quiet"})
    assert told.device == "cuda:0"


def test_a_step_without_memory_is_taken_again_there(plain_gpu: Places, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    net = model()

    def refuse(_module: Any, args: Any) -> None:
        if len(args[0]) > 4 and torch.is_grad_enabled():
            raise RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`")

    net.backbone.register_forward_pre_hook(refuse)
    fit(net, tmp_path, recipe="full")
    assert "going on with micro-batches of 4 samples" in caplog.text


def test_a_loss_that_is_not_finite_is_told_there_and_nothing_learns_it(plain_gpu: Places, tmp_path: Path) -> None:
    net = model()
    with pytest.raises(TrainingError, match="not finite"):
        net.fit(*DATA, out=tmp_path, recipe="full", **FIT | {"lr": 1e30, "warmup": 0.0})
    assert all(bool(torch.isfinite(value).all()) for value in values(net).values())


# The three kinds of mistakes that a fit on a GPU meets first, planted.
def test_a_planted_tensor_on_the_wrong_device_is_found(plain_gpu: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Loader, "_placed", lambda self, inputs: inputs)
    with pytest.raises(RuntimeError, match="same device"):
        fit(model(), tmp_path, recipe="full")


def test_a_planted_array_of_a_tensor_on_the_gpu_is_found(plain_gpu: Places) -> None:
    with pytest.raises(TypeError, match="can't convert cuda"):
        torch.zeros(2, device=CUDA).numpy()


def test_a_planted_mixture_of_devices_is_found(plain_gpu: Places) -> None:
    with pytest.raises(RuntimeError, match="same device"):
        torch.zeros(2, device="cuda") + torch.zeros(2)
    with pytest.raises(RuntimeError, match="indices should be on the same device"):
        torch.zeros(2)[torch.zeros(1, dtype=torch.int64, device="cuda")]
    assert float((torch.ones(2, device="cuda") * torch.tensor(2.0)).sum()) == 4.0


def test_a_run_on_the_cpu_does_not_initialise_cuda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(devices, "_accelerators", lambda: ["cuda"])
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda *_: pytest.fail("CUDA was initialised"))
    model().fit(*DATA, out=tmp_path, recipe="full", device="cpu", **FIT)
