"""The examples of docs/minimisers.md run and print what stands there."""

import doctest
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "minimisers.md"


def test_the_examples_run():
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.failed == 0 and result.attempted > 10
