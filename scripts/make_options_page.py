"""Write the tables of docs/options.md, recipes.md and metrics.md anew from the declarations: python scripts/make_options_page.py."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zoo.engine.inference.evaluate import evaluate
from zoo.engine.inference.inference_options import InferenceOptions
from zoo.engine.inference.predict import predict, predict_outputs
from zoo.engine.options.recipe import Recipe, phase_epochs
from zoo.engine.options.recipes import RECIPES
from zoo.engine.options.reference import option_table
from zoo.trust.metric_table import METRICS, TOP

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = (DOCS / "options.md", DOCS / "recipes.md", DOCS / "metrics.md")
# Documented in a sentence of ``predict_proba``, not as an argument of its own.
PROMPT = "name of a prompt of the backbone that is put before each text"


def made(text: str) -> str:
    """Return a page with the tables as the declarations have them."""
    tables = {"Training": option_table("Training"), "Data": option_table("Data"), "Inference": inference_table()}
    tables["Recipes"] = recipe_table()
    tables |= {task: metric_table(task) for task in METRICS}
    for section, table in tables.items():
        marks = f"<!-- {section} -->\n", f"\n<!-- end of {section} -->"
        text = re.sub(f"{re.escape(marks[0])}.*?{re.escape(marks[1])}", lambda _: table.join(marks), text, flags=re.DOTALL)  # noqa: B023
    return text


def inference_table() -> str:
    """Return the options of ``evaluate``, ``predict``, ``predict_proba`` and ``embed`` as a table in Markdown."""
    all_functions = {*keywords(predict_outputs), *keywords(InferenceOptions)}
    takes = {"evaluate": keywords(evaluate), "predict": all_functions | set(keywords(predict)), "predict_proba": all_functions}
    meanings = arguments(inspect.getdoc(predict) or "") | arguments(inspect.getdoc(evaluate) or "") | {"prompt_name": PROMPT}
    lines = ["| option | `evaluate` | `predict` | `predict_proba`, `embed` | meaning |", "|---|---|---|---|---|"]
    for name in dict.fromkeys((*keywords(evaluate), *sorted(takes["predict"]))):
        marks = " | ".join("yes" if name in known else "" for known in takes.values())
        lines.append(f"| `{name}` | {marks} | {meanings[name]} |")
    return "\n".join(lines)


def metric_table(task: str) -> str:
    """Return the metrics of a task as a table in Markdown."""
    lines = ["| metric | meaning | best | measured |", "|---|---|---|---|"]
    for metric in (*METRICS[task].values(), *([TOP] if task == "single-label" else [])):
        always = metric.name == "ece" or (metric.compute is None and metric is not TOP)
        best = "lowest" if metric.lower else "" if metric.name == "majority" else "highest"
        lines.append(f"| `{metric.name}` | {metric.meaning} | {best} | {'always' if always else 'on request'} |")
    return "\n".join(lines)


def recipe_table() -> str:
    """Return the phases of the named recipes with their numbers, a row per phase, as a table in Markdown."""
    lines = [
        "| recipe | phase | frozen | epochs | learning rate | layer decay | weight decay | BatchNorm |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, recipe in RECIPES.items():
        solved = [phase for phase in recipe.phases if phase.solve]
        epochs = phase_epochs(recipe, None, solved)
        last = [f"{recipe.layer_decay:g}", f"{recipe.weight_decay:g}", _batch_norm(recipe)]
        for first, (phase, number) in zip((True, *[False] * len(epochs)), zip(recipe.phases, epochs, strict=True), strict=False):
            lr = f"solved ({recipe.lr * phase.lr:g} where it is trained)" if phase.solve else f"{recipe.lr * phase.lr:g}"
            length = f"{number}, at least {phase.least_steps} steps" if phase.least_steps else str(number)
            cells = [f"`{name}`" if first else "", f"`{phase.name}`", str(phase.frozen), length, lr, *(last if first else [""] * 3)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _batch_norm(recipe: Recipe) -> str:
    """Return what becomes of the statistics of BatchNorm."""
    if all(phase.frozen == "all" for phase in recipe.phases):
        return "frozen"
    return "fixed statistics" if recipe.freeze_bn else "updated"


def keywords(function: Callable[..., Any]) -> list[str]:
    """Return the names of the keyword arguments of a function, or of the fields of a dataclass."""
    found = inspect.signature(function).parameters.values()
    return [
        one.name for one in found if one.kind is one.KEYWORD_ONLY or (inspect.isclass(function) and one.kind is one.POSITIONAL_OR_KEYWORD)
    ]


def arguments(docstring: str) -> dict[str, str]:
    """Return the descriptions of the arguments in a docstring, by name, as clauses in Markdown."""
    section = docstring.partition("Args:\n")[2].partition("\n\n")[0]
    found = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", section, re.MULTILINE | re.DOTALL)
    clauses = {name: " ".join(text.split()).replace("``", "`").removesuffix(".") for name, text in found}
    return {name: text[0].lower() + text[1:] for name, text in clauses.items()}


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(made(page.read_text(encoding="utf-8")), encoding="utf-8")
