"""The examples of the documents run: every block of Python, in order, in one namespace for each document."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", ["_sums.md"])
def test_the_examples_of_a_document_run(name):
    text = (FOLDER / name).read_text()
    namespace = {}
    blocks = list(BLOCK.finditer(text))
    assert blocks
    for block in blocks:
        line = text.count("\n", 0, block.start()) + 1
        code = "\n" * line + block[1]  # so that an error shows the line of the document
        exec(compile(code, str(FOLDER / name), "exec"), namespace)
