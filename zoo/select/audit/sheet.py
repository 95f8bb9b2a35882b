"""A contact sheet of what was found, as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from contextlib import suppress
from html import escape
from typing import Any

import numpy as np
import PIL.Image

from zoo.data.images.decode import decode
from zoo.data.images.scans.volumes import read_volume
from zoo.data.table import PIXELS, Table
from zoo.errors import count
from zoo.select.audit.findings.finding import Audit, Finding

SHOWN = 24  # samples, or pairs, of a finding
SIDE = 120  # pixels of a picture
LETTERS = 300  # of a text
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1c2024; background: #fff }
h1 { font-size: 1.4rem } h2 { font-size: 1.05rem; margin: 2rem 0 .3rem }
.leak { color: #b3261e } .warning { color: #8a5a00 } .note { color: #4a5560 }
.sheet { display: flex; flex-wrap: wrap; gap: .8rem } figure { margin: 0; max-width: 17rem }
figcaption { font-size: .75rem; overflow-wrap: anywhere }
img { margin-right: 2px; background: #eee } pre { background: #f4f5f7; padding: .8rem; overflow: auto }
blockquote { margin: 0; font-size: .85rem }
"""


def contact_sheet(audit: Audit, table: Table) -> str:
    """Return a page with the findings and pictures, or beginnings, of their samples."""
    counts = ", ".join(f"{name} {number}" for name, number in audit.splits.items())
    parts = [
        f"<h1>Check of {escape(audit.source)}</h1>",
        f"<p>{count(len(table), 'sample')} ({escape(counts)}), read as {escape(audit.reads)}</p>",
    ]
    if not audit.findings:
        parts.append("<p>Nothing was found.</p>")
    parts += [_section(finding, audit, table) for finding in audit.findings]
    if audit.left_out:
        rows = "".join(f"<li>{escape(name)}: {escape(reason)}</li>" for name, reason in audit.left_out.items())
        parts.append(f"<h2>Left out</h2><ul>{rows}</ul>")
    parts.append(f"<h2>Figures</h2><pre>{escape(json.dumps(audit.figures, indent=2, ensure_ascii=False))}</pre>")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Check of data</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _section(finding: Finding, audit: Audit, table: Table) -> str:
    captions: Sequence[str] = finding.captions or [""] * len(finding.rows)
    shown = zip(finding.rows[:SHOWN], captions[:SHOWN], strict=True)
    figures = "".join(_figure(rows, caption, audit, table) for rows, caption in shown)
    title = f'<h2 class="{finding.level}">{escape(finding.level)}: {escape(finding.check)}</h2>'
    return f'{title}<p>{escape(finding.message)}</p><div class="sheet">{figures}</div>{_cut(finding)}'


def _cut(finding: Finding) -> str:
    """Return how many samples of a finding are shown, and where the others are; empty where all are."""
    listed = len(finding.rows)
    if listed <= SHOWN:
        return ""
    where = f"the first {listed} are in check.json" if finding.more else "all are in check.json"
    return f"<p>{SHOWN} of {listed + finding.more} are shown; {where}</p>"


def _figure(rows: Sequence[int], caption: str, audit: Audit, table: Table) -> str:
    content = "".join(_content(table, row) for row in rows)
    named = [caption, *(audit.names.get(row, f"row {row}") for row in rows)]
    return f"<figure>{content}<figcaption>{'<br>'.join(escape(text[-160:]) for text in named if text)}</figcaption></figure>"


def _content(table: Table, row: int) -> str:
    """Return a small picture of a sample, or the beginning of a text; empty where it cannot be read."""
    with suppress(Exception):  # it is among the files that cannot be read, or its code is the user's
        if table.reads in PIXELS:
            stream = io.BytesIO()
            picture = _picture(table.inputs[row], volume=table.reads == "volume")
            picture.thumbnail((SIDE, SIDE))
            picture.save(stream, "JPEG", quality=80)
            return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}">'
        given: Any = table.inputs[row]
        text = " ".join(given) if isinstance(given, tuple | list) else str(given)
        return f"<blockquote>{escape(text[:LETTERS])}</blockquote>"
    return ""


def _picture(source: Any, *, volume: bool) -> PIL.Image.Image:
    """Return an image, or the middle slice of a volume."""
    if not volume:
        return decode(source, at_least=SIDE)
    middle = read_volume(source, 0)[0][0]
    middle = middle[:, :, middle.shape[2] // 2]
    low, high = np.percentile(middle, (1, 99))
    return PIL.Image.fromarray((np.clip((middle - low) / (float(high - low) or 1.0), 0, 1) * 255).astype(np.uint8))
