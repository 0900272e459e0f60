"""benchmarks/tracker_fusion.py on made-up tracks, in its smallest form: every command prints its rows."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import wiberg as wb
from wiberg.energies import fusion

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script, with presets of a few steps."""
    monkeypatch.syspath_prepend(str(FOLDER))
    module = importlib.import_module("tracker_fusion")
    for kind in (fusion.BoxFusion, fusion.CornerFusion):
        few = {name: wb_replace(settings) for name, settings in kind.presets.items()}
        monkeypatch.setattr(kind, "presets", few)
    yield module


def wb_replace(settings: fusion.Settings) -> fusion.Settings:
    from dataclasses import replace

    return replace(settings, steps=25, batch=16)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tracks") / "tracks.npz"
    np.savez(path, **fusion.made_up_arrays(sequences=9, frames=20, trackers=6, seed=0))
    return path
