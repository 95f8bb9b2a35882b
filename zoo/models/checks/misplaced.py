"""Arguments of other libraries that many give in the wrong place, and what is meant by them here. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

CLASSES = "the classes belong to the head: .adapt(num_classes={!r})"
FOLDS = "zoo.select.cross_validate and zoo cv take folds={!r}"
MISPLACED: Mapping[str, str] = MappingProxyType(
    {
        "num_classes": CLASSES,
        "num_labels": CLASSES,
        "n_trials": "zoo.select.tune and zoo tune take trials={!r}",
        "fold": FOLDS,
        "k": FOLDS,
        "n_folds": FOLDS,
        "n_splits": FOLDS,
        "num_folds": FOLDS,
        "checkpoint_path": "weights=FILE reads a checkpoint",
        "pretrained": "pretrained weights are the default; zoo.get(NAME, weights=False) starts from random values",
    }
)
# Options of Trainer, fastai and Keras by what they are called here.
RENAMED: Mapping[str, str] = MappingProxyType(
    {
        "learning_rate": "lr",
        "lr_max": "lr",
        "base_lr": "lr",
        "num_train_epochs": "epochs",
        "num_epochs": "epochs",
        "n_epoch": "epochs",
        "n_epochs": "epochs",
        "nb_epoch": "epochs",
        "max_epochs": "epochs",
        "bs": "batch_size",
        "train_batch_size": "batch_size",
        "per_device_train_batch_size": "batch_size",
        "wd": "weight_decay",
        "gradient_accumulation_steps": "accumulate",
        "max_grad_norm": "clip_grad",
        "label_smoothing_factor": "label_smoothing",
        "lr_scheduler_type": "schedule",
        "scheduler": "schedule",
        "warmup_ratio": "warmup",
        "warmup_steps": "warmup",
        "output_dir": "out",
        "metric_for_best_model": "monitor",
        "resume_from_checkpoint": "resume",
        "report_to": "log_with",
        "dataloader_num_workers": "workers",
        "num_workers": "workers",
        "callbacks": "on_epoch",
        "verbose": "quiet",
        "early_stopping": "patience",
        "early_stopping_patience": "patience",
        "val": "valid",
        "validation_data": "valid",
        "eval_dataset": "valid",
        "save_dir": "out",
        "lora_r": "lora_rank",
        "r": "lora_rank",
        "rank": "lora_rank",
        "random_state": "seed",
        "cbs": "on_epoch",
        "img_size": "image_size",
        "loss_func": "loss",
        "opt_func": "optimizer",
        "optim": "optimizer",
        "on_error": "on_corrupt",
    }
)


def remedies(given: Mapping[str, object]) -> dict[str, str]:
    """Return what to do instead of each misplaced argument, with the value that was given."""
    return {name: text.format(given[name]) for name, text in MISPLACED.items() if name in given}
