"""The examples of docs/frameworks.md run and print what stands there, each part in a process of its own."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "frameworks.md"
PARTS = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n?)*)", PAGE.read_text(), re.MULTILINE))
NEEDS = {"PyTorch": "torch", "JAX": "jax", "scikit-learn": "sklearn"}


@pytest.mark.parametrize("part", PARTS)
def test_the_examples_of_a_part_run(part, tmp_path):
    package = NEEDS.get(part)
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"{part} is not installed; make setup-frameworks")
    page = tmp_path / "part.md"
    page.write_text(re.sub(r"^```.*$", "", PARTS[part], flags=re.MULTILINE))
    code = f"import doctest; print(doctest.testfile({str(page)!r}, module_relative=False))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert re.search(r"failed=0, attempted=\d\d", done.stdout), done.stdout + done.stderr


def test_every_framework_has_a_part():
    assert {*NEEDS, "A function of your own"} == set(PARTS)
