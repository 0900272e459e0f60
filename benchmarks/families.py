"""A family of 300 small systems of one instance against the same as a batch of 300 instances with gathered data.

    python benchmarks/families.py

The systems are like those of human pose: 26 coefficients, 17 joints, 4 cameras, 3 models times 100 rotations. The last
row is about what members share: a table of exponentials of the data that all of them read. Prints a row for `run.py`
as a line of JSON for each.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import sympy as sp
from speed import pin
from timing import Row, compare, print_rows

MODELS, ROTATIONS, CAMERAS, JOINTS, BASES = 3, 100, 4, 17, 26
SECTION = "families, one core"

m, i = sp.Idx("m", MODELS), sp.Idx("i", ROTATIONS)
c, j, k = sp.Idx("c", CAMERAS), sp.Idx("j", JOINTS), sp.Idx("k", BASES)
d, p = sp.Idx("d", 2), sp.Idx("p", 3)


def array(name: str, *shape: Any) -> Any:
    return sp.IndexedBase(name, shape=shape)


def pose(*, family: bool) -> Any:
    """26 coefficients of a pose, turned about the vertical axis and seen by four cameras, robust."""
    import wiberg as wb

    lead, own = ((MODELS,), (m,)) if family else ((), ())
    bases, mean = array("bases", *lead, BASES, JOINTS, 3), array("mean", *lead, JOINTS, 3)
    omega, ridge = array("omega", *lead, JOINTS), array("ridge", *lead, BASES)
    cameras, seen = array("cameras", CAMERAS, 2, 3), array("seen", CAMERAS, JOINTS, 2)
    sine, cosine = sp.symbols("sine cosine", real=True)
    if family:
        angle = 2 * sp.pi * i / ROTATIONS
        sine, cosine = sp.sin(angle), sp.cos(angle)
    a, P = array("a", BASES), array("P", JOINTS, 3)
    turned = (sine * P[j, 0] + cosine * P[j, 1], -cosine * P[j, 0] + sine * P[j, 1], P[j, 2])
    projected = sum(cameras[c, d, axis] * turned[axis] for axis in range(3))
    distance2 = sp.Sum((projected - seen[c, j, d]) ** 2, d)
    energy = sp.Sum(omega[(*own, j)] * (sp.sqrt(1 + distance2) - 1), c, j)
    energy += sp.Sum(ridge[(*own, k)] * a[k] ** 2, k)
    where = {P[j, p]: mean[(*own, j, p)] + sp.Sum(a[k] * bases[(*own, k, j, p)], k)}
    models = [bases, mean, omega, ridge]
    if family:
        return wb.Energy(energy, variables=[a], weights=[*models, cameras], data=[seen], where=where, over=[m, i])
    return wb.Energy(
        energy, variables=[a], weights=[cameras], data=[*models, sine, cosine, seen], where=where, name="gathered"
    )


def shared(*, family: bool) -> Any:
    """Four unknowns that are fitted to a table of 17 x 400 exponentials of the data, which no index of a family has."""
    import wiberg as wb

    r, z, y = sp.Idx("r", 400), array("z", JOINTS, 400), array("y", 4)
    q, table, level = sp.Idx("q", 4), array("table", JOINTS), array("level", *((ROTATIONS,) if family else ()), 4)
    own = (i,) if family else ()
    residual = table[j] - sp.Sum(y[q] * sp.cos(q * j), q)
    energy = sp.Sum(sp.sqrt(1 + residual**2), j) + sp.Sum((y[q] - level[(*own, q)]) ** 2, q)
    where = {table[j]: sp.Sum(sp.exp(-(z[j, r] ** 2)), r)}
    roles = {"variables": [y], "data": [z, level], "where": where}
    return wb.Energy(energy, **roles, over=[i]) if family else wb.Energy(energy, **roles, name="gathered")


def rows() -> Iterator[Row]:
    import wiberg as wb

    clock = time.process_time
    rng = np.random.default_rng(0)
    models = {
        "bases": 0.1 * rng.normal(size=(MODELS, BASES, JOINTS, 3)), "mean": rng.normal(size=(MODELS, JOINTS, 3)),
        "omega": 1 + rng.random((MODELS, JOINTS)), "ridge": 1 + rng.random((MODELS, BASES)),
    }  # fmt: skip
    angle = 2 * np.pi * np.arange(ROTATIONS) / ROTATIONS
    cameras, seen = rng.normal(size=(CAMERAS, 2, 3)), rng.normal(size=(CAMERAS, JOINTS, 2))
    weights, data, start = {**models, "cameras": cameras}, {"seen": seen}, {"a": np.zeros(BASES)}

    def gathered() -> dict[str, Any]:
        repeated = {name: np.repeat(values, ROTATIONS, axis=0) for name, values in models.items()}
        return {**repeated, "sine": np.tile(np.sin(angle), MODELS), "cosine": np.tile(np.cos(angle), MODELS), **data}

    family, batch, rest = wb.compile(pose(family=True)), wb.compile(pose(family=False)), gathered()
    ours, theirs = (
        wb.minimise(family, weights, data, start=start),
        wb.minimise(batch, {"cameras": cameras}, rest, start=start),
    )
    assert ours.converged.all() and np.allclose(ours.energy.ravel(), theirs.energy, rtol=1e-12)
    y, flat, box = ours.variables, {"a": ours.variables["a"].reshape(-1, BASES)}, {"a": (-0.05, 0.05)}
    pairs = {
        "value, gradient and Hessian": (
            lambda: family.value_gradient_hessian(y, weights, data),
            lambda: batch.value_gradient_hessian(flat, {"cameras": cameras}, rest),
        ),
        "minimise": (
            lambda: wb.minimise(family, weights, data, start=start),
            lambda: wb.minimise(batch, {"cameras": cameras}, rest, start=start),
        ),
        "minimise by IRLS": (
            lambda: wb.minimise(family, weights, data, start=start, method="irls"),
            lambda: wb.minimise(batch, {"cameras": cameras}, rest, start=start, method="irls"),
        ),
        "minimise within bounds, reported": (
            lambda: wb.minimise(family, weights, data, start=start, bounds=box, callback=lambda done, total: None),
            lambda: wb.minimise(
                batch, {"cameras": cameras}, rest, start=start, bounds=box, callback=lambda done, total: None
            ),
        ),
        "minimise, gathering in it": (
            lambda: wb.minimise(family, weights, data, start=start),
            lambda: wb.minimise(batch, {"cameras": cameras}, gathered(), start=start),
        ),
    }
    for title, (mine, other) in pairs.items():
        yield row(f"300 poses: {title}", *compare(mine, other, clock), sign="<=", bound=1.05)

    family, batch = wb.compile(shared(family=True)), wb.compile(shared(family=False))
    z, level, start = rng.normal(size=(JOINTS, 400)), rng.normal(size=(ROTATIONS, 4)), {"y": np.zeros(4)}
    ours, theirs = (wb.minimise(kernel, None, {"z": z, "level": level}, start=start) for kernel in (family, batch))
    assert np.allclose(ours.energy, theirs.energy, rtol=1e-12)
    found = compare(
        lambda: wb.minimise(family, None, {"z": z, "level": level}, start=start),
        lambda: wb.minimise(batch, None, {"z": z, "level": level}, start=start),
        clock,
    )
    yield row("100 members share a costly table", *found, sign=">=", bound=8.0)


def row(work: str, ours: Any, theirs: Any, *, sign: str, bound: float) -> Row:
    ratios = [(a / b if sign == "<=" else b / a) for a, b in zip(ours, theirs, strict=True)]
    return Row(SECTION, work, "ms", 1e3 * ours[0], 1e3 * theirs[0], "a batch", *ratios, sign, bound)


def main() -> None:
    pin(1)
    import wiberg as wb

    wb.set_threads(1)
    print_rows(rows())


if __name__ == "__main__":
    main()
