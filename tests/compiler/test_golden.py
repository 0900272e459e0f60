"""Golden tests: the emitted source of five energies is kept, and a change of it shows as a diff to be read.

    python -m pytest tests/compiler/test_golden.py --accept-golden        writes the files anew

That is done when the difference was read and is wanted; the commit says why the source changed.
"""

import difflib
from pathlib import Path

import pytest
from wiberg.compiler.derive import compile_text

FOLDER = Path(__file__).parent / "golden"
KEPT = {
    "ransac": "value_gradient_hessian",  # the fused kernel, with a prepared weight and an exponential
    "denoise": "gradient",  # offsets and partial ranges, added in place
    "springs": "cross_adjoint",  # gathers
    "logistic": "hvp",  # nested sums, a sum in a register
    "pose": "value",  # short axes written out, a robust penalty
}


@pytest.mark.parametrize(("name", "kind"), KEPT.items(), ids=KEPT)
def test_the_source_is_the_one_that_was_kept(name, kind, energies, request):
    path = FOLDER / f"{name}_{kind}.py.txt"
    source = compile_text(energies[name], kind).source
    if request.config.getoption("--accept-golden"):
        path.write_text(source)
    kept = path.read_text() if path.exists() else ""
    difference = difflib.unified_diff(
        kept.splitlines(), source.splitlines(), f"kept {path.name}", "emitted now", lineterm=""
    )
    text = "\n".join(difference)
    assert not text, f"{text}\n\nIf that is wanted: --accept-golden, and say why in the commit."


def test_no_file_is_kept_without_a_test():
    assert {p.name for p in FOLDER.iterdir()} == {f"{name}_{kind}.py.txt" for name, kind in KEPT.items()}
