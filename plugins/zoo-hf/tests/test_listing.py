"""The catalogue: complete for every alias, current, and listed without any model library or network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import make_catalogue
import make_docs
import pytest
import zoo_hf
from zoo_hf.catalogue import CATALOGUE, table
from zoo_hf.declared_families import FAMILIES

import zoo

REGISTRY = Path(__file__).resolve().parents[3] / "registry.toml"
PAGE = REGISTRY.parent / "docs" / "plugins" / "hf.md"
LISTED = {spec.name: spec for spec in zoo_hf.zoo_backbones()}


def test_the_catalogue_is_what_the_script_writes() -> None:
    assert json.loads(CATALOGUE.read_bytes()) == make_catalogue.catalogue()


def test_every_alias_of_this_source_is_listed() -> None:
    aliases = [target for target in zoo.Registry(files=[REGISTRY]).aliases.values() if target.startswith("hf/")]
    assert len(aliases) >= 10
    assert [target for target in aliases if target not in LISTED] == []


def test_listing_and_describing_import_no_model_library_and_open_no_socket() -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise AssertionError('a socket was opened')\n"
        "socket.socket.connect = refuse\n"
        "import zoo\n"
        "assert zoo.list_backbones('hf/*')\n"
        "spec = zoo.get('bert-base-uncased').spec\n"
        "assert spec.options['config']['vocab_size'] == 30522, spec\n"
        "sys.exit(str({'torch', 'transformers', 'numpy', 'huggingface_hub'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.stderr.strip(), done.stderr


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_family_leads_back_to_a_declaration_without_weights(family: str) -> None:
    spec = zoo.get(f"hf/{family}", weights=False).spec
    assert (spec.base, spec.weights, spec.options["config"]) == ("", None, {"model_type": family})


def test_facts_are_declared() -> None:
    bert, mini, dino = (
        LISTED[f"hf/{name}"]
        for name in ("google-bert/bert-base-uncased", "sentence-transformers/all-MiniLM-L6-v2", "facebook/dinov2-small")
    )
    assert (bert.parameters, bert.license, bert.features) == (109_482_240, "apache-2.0", zoo.Features(dim=768, layout="BD"))
    assert mini.features == zoo.Features(dim=384, layout="BND", pool="avg", prefix_tokens=1, normalize=True)
    assert isinstance(mini.inputs, zoo.Text)
    assert (mini.inputs.max_length, mini.inputs.files) == (256, "sentence-transformers/all-MiniLM-L6-v2")
    assert dino.inputs == zoo.Image(size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop=0.875)
    assert all(spec.parameters > 1e6 for spec in LISTED.values())
    assert table().keys() == {name.removeprefix("hf/") for name in LISTED}


def test_the_table_in_the_documentation_is_current() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = "\n".join(make_docs.rows())
    assert f"make_plugin_pages.py -->\n\n{table}\n\n<!-- end of families -->" in text


def test_the_page_names_every_family() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [family for family in FAMILIES if f"`{family}`" not in page] == []
