"""Texts that describe classes, from the names of the classes and templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from zoo.errors import OptionError, count, did_you_mean, examples, fault_list

# By name. ``openai``: the seven that the authors of CLIP chose of 80 on ImageNet (their notebook Prompt_Engineering_for_ImageNet).
TEMPLATES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "photo": ("a photo of a {}.",),
        "openai": (
            "itap of a {}.",
            "a bad photo of the {}.",
            "a origami {}.",
            "a photo of the large {}.",
            "a {} in a video game.",
            "art of the {}.",
            "a photo of the small {}.",
        ),
        "siglip": ("This is a photo of {}.",),
        "name": ("{}",),
    }
)
DEFAULT = "photo"


def find_templates(given: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return templates, each with ``{}`` where the name of a class stands.

    Args:
        given: A name of ``TEMPLATES``, one template, several, or None for ``photo``.

    Raises:
        OptionError: Naming every template without one ``{}``.
    """
    if given is None:
        return TEMPLATES[DEFAULT]
    if isinstance(given, str) and "{" not in given:
        if given not in TEMPLATES:
            known = f"{', '.join(TEMPLATES)}, or texts with {{}} where the name of the class stands"
            raise OptionError(f"there are no templates {given!r}{did_you_mean(given, TEMPLATES)}; they are: {known}")
        return TEMPLATES[given]
    found = (given,) if isinstance(given, str) else tuple(given)
    odd = [repr(one) for one in found if not isinstance(one, str) or one.count("{}") != 1 or one.replace("{}", "").count("{")]
    if odd or not found:
        what = f"{count(len(odd), 'template')} of {len(found)} without one {{}}: {examples(odd)}" if odd else "there is no template"
        raise OptionError(f"templates: {what}; write '{{}}' where the name of the class stands, as in 'a photo of a {{}}.'")
    return found


def check_names(labels: Sequence[str] | None, words: Mapping[str, str] | None) -> None:
    """Check that classes have names that a text encoder can make something of.

    Args:
        labels: Names of the classes.
        words: What stands in a template instead of some of them.

    Raises:
        OptionError: If there are none, or some are empty or numbers without words, or words are of no class; all in one error.
    """
    if not labels:
        raise OptionError("a zero-shot head is made of the names of the classes, and there are none; give labels=['cat', 'dog']")
    known = words or {}
    faults = [f"{name!r} of words is no class{did_you_mean(str(name), labels)}" for name in known if name not in labels]
    bare = [repr(name) for name in labels if name not in known and not any(map(str.isalpha, name))]
    if bare:
        faults.append(f"{count(len(bare), 'class')} without a name: {examples(bare)}")
    faults += [f"the words of {name!r} are {text!r}" for name, text in known.items() if not (isinstance(text, str) and text.strip())]
    if faults:
        remedy = "Give words={'0': 'zero', …}, or zero_shot({'0': 'zero', …}): what stands in the templates for each class"
        raise OptionError(fault_list("no texts can be made of these classes:", faults, remedy))


def prompts_of(labels: Sequence[str], templates: Sequence[str], words: Mapping[str, str] | None = None) -> list[list[str]]:
    """Return the texts of each class, one per template; underscores of names become blanks."""
    known = words or {}
    texts = [str(known.get(label, label.replace("_", " "))).strip() for label in labels]
    return [[template.replace("{}", text) for template in templates] for text in texts]
