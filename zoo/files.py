"""Writing small files so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any


def user_folder(variable: str, usual: str) -> Path:
    """Return zoo's folder below the one that an ``XDG_…`` variable names, or below its usual place."""
    return Path(os.environ.get(variable) or os.path.expanduser(usual)) / "zoo"  # noqa: PTH111  # Path's raises without a home


def config_folder() -> Path:
    """Return the folder of the user's own settings."""
    return user_folder("XDG_CONFIG_HOME", "~/.config")


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Write a text file in one step; where the path is a link, the link is replaced and its target left as it is.

    Args:
        path: The file.
        text: Its content.
        private: Whether only the user may read and write it.
    """
    stage = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    mode = 0o600 if private else 0o666  # less the umask
    try:
        # Made anew: a link of this name would be written through.
        with open(stage, "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, mode)) as stream:
            stream.write(text)
        stage.replace(path)
    except BaseException:
        stage.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON in one step, indented."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
