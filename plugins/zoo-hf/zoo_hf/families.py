"""All supported families of transformers, by their ``model_type``."""

from __future__ import annotations

from collections.abc import Mapping

from zoo_hf.family import Family
from zoo_hf.image_families import IMAGE
from zoo_hf.text_families import TEXT

FAMILIES: Mapping[str, Family] = dict(sorted({**TEXT, **IMAGE}.items()))
