from __future__ import annotations

import os
import pickle
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from tests.conftest import ROOT
from tests.data.make import folder, image
from tests.warm_process import run_warm
from zoo.data.dataset import Samples
from zoo.data.images.augment import Augment
from zoo.data.images.transforms import eval_transform, train_transform
from zoo.data.open import open_data, open_train_valid
from zoo.data.table import Table
from zoo.data.unreadable import allowed, drop_corrupt
from zoo.declare import Image
from zoo.engine.loading.workers import init_worker
from zoo.errors import CorruptInputError, DataError, OptionError

INPUTS = Image(size=8)


def loader(samples: Samples, workers: int, **options: Any) -> DataLoader[Any]:
    many = {"worker_init_fn": init_worker, "persistent_workers": True, "multiprocessing_context": "fork"} if workers else {}
    return DataLoader(samples, batch_size=3, num_workers=workers, collate_fn=list, **many, **options)


def epoch(batches: DataLoader[Any]) -> torch.Tensor:
    try:
        return torch.stack([x for batch in batches for x, _, _ in batch])
    except BaseException:
        # Left to the garbage collector, the queues are gone before the workers are told, and each costs 5 s.
        if isinstance(iterator := batches._iterator, _MultiProcessingDataLoaderIter):
            iterator._shutdown_workers()
        raise


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return folder(tmp_path / "pets", cat=5, dog=5)


def test_samples_are_tensor_target_and_index(pets: Path) -> None:
    samples = Samples(open_data(pets), eval_transform(INPUTS))
    x, target, index = samples[7]
    assert (tuple(x.shape), target, index, len(samples)) == ((3, 8, 8), 1, 7, 10)


def test_targets_keep_their_kind() -> None:
    pictures = [image(0), image(1)]
    several = Samples(open_data((pictures, ["a|b", "b"]), task="multi-label"), eval_transform(INPUTS))[1][1]
    number = Samples(open_data((pictures, [1.5, 2.0]), task="regression"), eval_transform(INPUTS))[0][1]
    assert several.tolist() == [0.0, 1.0]
    assert (number, number.dtype) == (1.5, np.float32)
    assert Samples(open_data(pictures), eval_transform(INPUTS))[0][1] is None


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_workers_and_order_change_nothing_and_epochs_reach_workers_that_live_on(pets: Path) -> None:
    samples = Samples(open_data(pets), train_transform(INPUTS, Augment(erase=0.5)), seed=5)
    runs = []
    for workers in (0, 2):
        batches = loader(samples, workers)
        for number in (0, 1, 0):
            samples.set_epoch(number)
            runs.append(epoch(batches))
    assert all(torch.equal(run, runs[index % 3]) for index, run in enumerate(runs))
    assert torch.equal(runs[0], runs[2])
    assert not torch.equal(runs[0], runs[1])
    assert torch.equal(torch.stack([samples.at(1, index)[0] for index in reversed(range(10))]).flip(0), runs[1])


def test_other_seeds_draw_other_numbers(pets: Path) -> None:
    transform = train_transform(INPUTS, Augment())
    first, other = (Samples(open_data(pets), transform, seed=seed)[0][0] for seed in (1, 2))
    assert not torch.equal(first, other)


def test_samples_survive_pickling(pets: Path) -> None:
    samples = Samples(open_data(pets), train_transform(INPUTS, Augment()), seed=5)
    samples.set_epoch(3)
    again = pickle.loads(pickle.dumps(samples))
    assert again.epoch == 3
    assert torch.equal(again[4][0], samples[4][0])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_file_is_named_in_one_line_also_by_workers(pets: Path, workers: int) -> None:
    (pets / "dog/2.png").write_text("not an image")
    with pytest.raises(CorruptInputError) as caught:
        epoch(loader(Samples(open_data(pets), eval_transform(INPUTS)), workers))
    message = str(caught.value)
    assert "sample 7 of" in message
    assert "dog/2.png" in message
    assert "it is text" in message
    assert "Traceback" not in message


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_tensor_of_another_shape_is_refused_by_its_row(workers: int) -> None:
    data = [torch.zeros(3, 8, 8), torch.zeros(3, 9, 9)]
    with pytest.raises(DataError, match=r"^sample 1 of the list: .*\(3, 9, 9\).*[^\n]$"):
        epoch(loader(Samples(open_data(data), eval_transform(INPUTS)), workers))


def test_a_dataset_that_raises_is_told_as_a_sample_that_cannot_be_read() -> None:
    class Broken(Dataset[Any]):
        targets = [0, 1, 0]  # noqa: RUF012

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            if index == 2:
                raise KeyError("gone")
            return image(index), index

    with pytest.raises(CorruptInputError, match="item 2 of the dataset Broken cannot be read: KeyError: 'gone'"):
        Samples(open_data(Broken()), eval_transform(INPUTS))[2]


def test_skipping_leaves_out_exactly_the_corrupt_ones_and_says_so_once(pets: Path, caplog: pytest.LogCaptureFixture) -> None:
    (pets / "dog/2.png").write_text("not an image")
    (pets / "cat/0.png").write_bytes((pets / "cat/0.png").read_bytes()[:-40])
    table = open_data(pets)
    for _ in range(2):
        samples = Samples(drop_corrupt(table, max_corrupt=0.2)[0], eval_transform(INPUTS))
        assert [Path(path).parts[-2:] for path in table.inputs if path not in samples.table.inputs] == [("cat", "0.png"), ("dog", "2.png")]
        assert len(epoch(loader(samples, 0))) == 8
    assert caplog.text.count("2 samples of 10 (20.0%) cannot be decoded and are left out") == 2
    assert caplog.text.count("dog/2.png") == 2


def test_too_many_corrupt_files_stop_with_all_of_them_counted(pets: Path) -> None:
    for index in range(5):
        (pets / f"dog/{index}.png").write_text("not an image")
    with pytest.raises(DataError, match=r"(?s)5 samples of 10 \(50.0%\).*more than the default allows .1.*dog/3\.png.*… and 1 more"):
        drop_corrupt(open_data(pets))
    with pytest.raises(DataError, match="nothing is left of 'dog'"):
        drop_corrupt(open_data(pets), max_corrupt=0.5)


@pytest.mark.parametrize(
    ("bad", "samples", "skipped"),
    [
        (1, 1, True),
        (1, 10, True),
        (2, 10, False),
        (1, 49, True),
        (3, 49, True),
        (5, 49, False),
        (24, 49, False),
        (5, 100, True),
        (6, 100, False),
        (5, 10, False),
        (10, 1000, True),
        (11, 1000, False),
    ],
)
def test_in_small_sets_a_few_corrupt_samples_are_skipped_by_default(bad: int, samples: int, skipped: bool) -> None:
    assert (bad <= allowed(samples)) == skipped


def test_a_share_is_exact_and_the_remedy_of_the_message_is_enough() -> None:
    assert [allowed(49, 0.01), allowed(100, 0.29), allowed(10, 0.0), allowed(10, 1.0)] == [0, 29, 0, 10]


@pytest.mark.parametrize("seed", range(4))
def test_one_corrupt_file_of_ten_is_skipped_on_either_side_of_a_hold_out(seed: int, pets: Path, caplog: pytest.LogCaptureFixture) -> None:
    (pets / "dog/2.png").write_text("not an image")
    train, valid = drop_corrupt(*open_train_valid(pets, seed=seed))
    assert len(train) + len(valid or ()) == 9
    assert "is left out" in caplog.text
    assert "dog/2.png" in caplog.text
    (pets / "cat/0.png").write_text("not an image")
    with pytest.raises(DataError, match=r"2 samples of 10 \(20.0%\).*the default allows"):
        drop_corrupt(*open_train_valid(pets, seed=seed))


def test_given_validation_data_are_counted_apart(pets: Path, tmp_path: Path) -> None:
    for index in range(5):
        (pets / f"dog/{index}.png").write_text("not an image")
    large = open_data(([image(index) for index in range(1000)], [0, 1] * 500))
    with pytest.raises(DataError, match=r"5 samples of 10 \(50.0%\)"):
        drop_corrupt(large, open_data(pets))


def test_rows_that_are_not_files_can_be_corrupt_too() -> None:
    tensors = Table([torch.zeros(3, 8, 8), torch.full((3, 8, 8), float("inf"))], None)
    assert len(drop_corrupt(tensors)[0]) == 1
    with pytest.raises(DataError, match="row 1 has values that are not finite"):
        drop_corrupt(tensors, max_corrupt=0.4)
    with pytest.raises(DataError, match="nothing is left"):
        drop_corrupt(tensors.select([1]))


def test_the_share_that_may_be_corrupt_is_checked(pets: Path) -> None:
    with pytest.raises(OptionError, match="max_corrupt is 5"):
        drop_corrupt(open_data(pets), max_corrupt=5)


WORKERS = """
    import os, sys, time, warnings
    os.setsid()
    warnings.simplefilter("ignore")
    from torch.utils.data import DataLoader
    from zoo.data.dataset import Samples
    from zoo.data.open import open_data, open_train_valid
    from zoo.data.images.transforms import eval_transform
    from zoo.engine.loading.workers import starting_workers, init_worker
    from zoo.declare import Image
    import signal
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    samples = Samples(open_data(sys.argv[1]), eval_transform(Image(size=8)))
    options = dict(num_workers=2, persistent_workers=True, multiprocessing_context="fork", worker_init_fn=init_worker)
    batches = DataLoader(samples, batch_size=1, collate_fn=list, **options)
    with starting_workers("fork"):
        iterator = iter(batches)
    next(iterator)
    sender = os.fork()  # not the main process, whose signal ends the workers
    if not sender:
        os.killpg(0, signal.SIGTERM)
        os._exit(0)
    os.waitpid(sender, 0)
    while not stopped:
        time.sleep(0.01)
    print(os.getpid(), sum(1 for _ in iterator))
"""


def test_workers_outlive_a_signal_to_the_group_and_end_with_the_main_process(pets: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = run_warm(textwrap.dedent(WORKERS), [str(pets)], env=environment, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    group, left = map(int, done.stdout.split())
    assert left == 9
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)
