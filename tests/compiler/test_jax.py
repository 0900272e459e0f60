"""JAX as a second outside reference, over the table of energies (tests/jax_reference.py); skipped without JAX."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from energies_table import TABLE, draw
from wiberg.compiler.testing import dense

SCRIPT = Path(__file__).parents[1] / "jax_reference.py"
SIZES = 3  # as there


@pytest.fixture(scope="module")
def by_jax(tmp_path_factory):
    if importlib.util.find_spec("jax") is None:
        pytest.skip("JAX is not installed; make setup-frameworks")
    path = tmp_path_factory.mktemp("jax") / "out.npz"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(path)], capture_output=True, text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with np.load(path) as file:
        return dict(file)


@pytest.mark.parametrize("name", TABLE)
def test_jax_agrees(name, by_jax, references):
    if f"{name} unknown" in by_jax:
        pytest.skip(f"jax_reference.py has no translation of {by_jax[f'{name} unknown']}")
    kernel = references[name]
    point = draw(kernel.energy, SIZES)
    for kind in ("value", "gradient", "hessian", *(["cross"] if kernel.energy.weights else [])):
        got, expected = np.asarray(dense(getattr(kernel, kind)(*point))), by_jax[f"{name} {kind}"]
        scale = 1 + np.abs(expected).max(initial=0.0)
        np.testing.assert_allclose(got / scale, expected / scale, rtol=0, atol=1e-10, err_msg=kind)


def test_most_of_the_table_is_translated(by_jax):
    unknown = [key for key in by_jax if key.endswith(" unknown")]
    assert len(unknown) <= len(TABLE) // 5, unknown
