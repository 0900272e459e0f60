"""The examples of docs/_matrices.md run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "_matrices.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def scope() -> dict[str, Any]:
    """Names of the examples so far: each continues the one before."""
    return {}


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_an_example_runs(number: int, scope: dict[str, Any]) -> None:
    exec(compile(BLOCKS[number], f"{PAGE.name} example {number + 1}", "exec"), scope)
