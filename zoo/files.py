"""Writing small files so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step; where the path is a link, the link is replaced and its target left as it is."""
    stage = path.with_name(f".{path.name}.part")
    stage.unlink(missing_ok=True)  # a link of this name would be written through
    stage.write_text(text, encoding="utf-8")
    stage.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON in one step, indented."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
