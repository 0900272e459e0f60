"""The examples of docs/language.md run: every block of Python, in order, in one namespace for each part of the page."""

import doctest
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "language.md"
TEXT = PAGE.read_text()
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PARTS = {
    match[1]: match.span(2) for match in re.finditer(r"^# ([A-Z].+)\n((?:(?!^# [A-Z]).*\n?)*)", TEXT, re.MULTILINE)
}


@pytest.mark.filterwarnings("ignore::wiberg.energies.errors.UnboundedDerivativeWarning")
@pytest.mark.parametrize("part", [name for name, span in PARTS.items() if BLOCK.search(TEXT, *span)])
def test_the_examples_of_a_part_run(part):
    namespace = {}
    for block in BLOCK.finditer(TEXT, *PARTS[part]):
        line = TEXT.count("\n", 0, block.start()) + 1
        code = "\n" * line + block[1]  # so that an error shows the line of the page
        exec(compile(code, str(PAGE), "exec"), namespace)


def test_every_part_has_examples():
    assert len(PARTS) == 4 and sum(len(BLOCK.findall(TEXT, *span)) for span in PARTS.values()) > 15


def test_the_examples_of_the_minimisers_run():
    assert doctest.testfile(str(PAGE.with_name("minimisers.md")), module_relative=False).failed == 0
