"""The example of docs/fusion.md runs."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "fusion.md"


def test_the_example_of_the_page_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len([line for line in block.splitlines() if line]) <= 13  # ten lines besides the imports and the check
    exec(compile(block, str(PAGE), "exec"), {})
