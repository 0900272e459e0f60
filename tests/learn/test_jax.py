"""`wb.jax.minimise`, in a process of its own (jax_cases.py says why)."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

CASES = Path(__file__).with_name("jax_cases.py")
NAMES = [
    node.name
    for node in ast.parse(CASES.read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Of every test by name: what went wrong, or nothing."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip("JAX is not installed; make setup-frameworks")
    report = tmp_path_factory.mktemp("jax") / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", f"--junitxml={report}"]
    done = subprocess.run([*command, str(CASES)], capture_output=True, text=True, env={**os.environ}, timeout=900)
    assert report.is_file(), done.stdout + done.stderr
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        wrong = [f"{case.get('name')}\n{part.text}" for part in case if part.tag in ("failure", "error", "skipped")]
        found.setdefault(case.get("name").split("[")[0], []).extend(wrong)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_in_a_process_of_its_own(outcomes, name):
    assert name in outcomes, f"{name} was not run"
    assert not outcomes[name], "\n".join(outcomes[name])


def test_without_jax_the_extra_is_named():
    code = (
        "import sys; sys.modules['jax'] = None\n"
        "import wiberg as wb\n"
        "try:\n    wb.jax\nexcept wb.MissingPackageError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'wiberg[jax]'" in done.stdout, done.stderr
