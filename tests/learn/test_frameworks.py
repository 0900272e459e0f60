"""Frameworks are no part of the core: nothing of them is imported before it is asked for."""

import subprocess
import sys

import pytest
import wiberg as wb
from wiberg.learn.frameworks import MODULES


def test_the_core_imports_none_of_them():
    code = f"import sys, wiberg; print({{*sys.modules}} & {{*{sorted(MODULES)!r}}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr


def test_other_names_are_unknown():
    with pytest.raises(AttributeError, match="no attribute 'tensorflow'"):
        wb.tensorflow  # noqa: B018
