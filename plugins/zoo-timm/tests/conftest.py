"""Shared fixtures of the plugin's tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

PLUGIN = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PLUGIN / "scripts"))  # the tests run the same conformance script as a person does


@pytest.fixture(scope="session")
def weights() -> Path:
    """The folder of real pretrained weights beside the checkout."""
    folder = PLUGIN.parents[2] / "shared" / "data" / "weights"
    if not folder.is_dir():
        pytest.skip("no ../shared/data/weights beside this checkout")
    return folder
