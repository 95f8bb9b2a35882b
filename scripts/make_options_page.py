"""Write the tables of docs/options.md anew from the declarations of the options: python scripts/make_options_page.py."""

from __future__ import annotations

import re
from pathlib import Path

from zoo.engine.options.reference import option_table

PAGE = Path(__file__).resolve().parents[1] / "docs" / "options.md"
SECTIONS = ("Training", "Data")


def made(text: str) -> str:
    """Return the page with the tables as the declarations have them."""
    for section in SECTIONS:
        marks = f"<!-- {section} -->\n", f"\n<!-- end of {section} -->"
        text = re.sub(f"{re.escape(marks[0])}.*?{re.escape(marks[1])}", lambda _: option_table(section).join(marks), text, flags=re.DOTALL)  # noqa: B023
    return text


if __name__ == "__main__":
    PAGE.write_text(made(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
