"""For users' own tests: `check_derivatives`, and hypothesis strategies for random points and random energies.

Every derivative of a kernel is held against the SymPy expression itself, evaluated outside of the compiler
(formula.py): gradients by the complex step where all functions are analytic, everything else by differences in
60-digit arithmetic, which are exact to double precision.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import mpmath
import numpy as np

from ..energies.energy import Energy
from ..energies.errors import InputError, NumericalError
from . import formula
from .calls.declaration import ADJOINTS
from .kernel import Kernel, compile
from .points import Point, extents_of, family_of, random_point
from .random_energies import random_energy, random_family

DIGITS = 60
STEP = mpmath.mpf(10) ** -18
TOLERANCE = 1e-8
LARGE_EVERY = 4  # every fourth trial has a large extent
MOST_MEMBERS = 4  # of a family, at a point
LARGEST = 1e6  # points at which a derivative is larger are not used: rounding alone would exceed the tolerance

Entry = tuple[str, tuple[int, ...]]
Direction = tuple[tuple[Entry, float], ...]


@dataclass(frozen=True)
class Deviation:
    """One entry of one derivative: what the kernel gave, what it should be, and where."""

    derivative: str
    entry: str
    got: float
    expected: float
    error: float
    trial: int

    def __str__(self) -> str:
        return (
            f"{self.derivative} {self.entry}: got {self.got:.17g}, expected {self.expected:.17g} "
            f"(relative error {self.error:.1e}, trial {self.trial})"
        )


@dataclass
class DerivativeReport:
    """The outcome of `check_derivatives`; print it.

    ok       whether every entry of every derivative is within the tolerance
    worst    the entry with the largest relative error
    by_kind  the worst entry of each derivative
    """

    energy: str
    trials: int
    tolerance: float
    by_kind: dict[str, Deviation] = field(default_factory=dict)

    @property
    def worst(self) -> Deviation:
        return max(self.by_kind.values(), key=lambda d: d.error)

    @property
    def ok(self) -> bool:
        return self.worst.error <= self.tolerance

    def __str__(self) -> str:
        verdict = "all derivatives agree" if self.ok else "a derivative is WRONG"
        lines = [
            f"energy {self.energy!r}: {verdict} with the outside reference ({self.trials} trials, "
            f"tolerance {self.tolerance:g})"
        ]
        lines += [f"  {kind:14} worst relative error {d.error:.1e}" for kind, d in self.by_kind.items()]
        return "\n".join([*lines, f"  worst entry: {self.worst}"])


def check_derivatives(
    energy: Energy,
    trials: int = 20,
    seed: int = 0,
    *,
    tolerance: float = TOLERANCE,
    backend: str = "numba",
    kernel: Kernel | None = None,
) -> DerivativeReport:
    """Compare every derivative of an energy with an outside reference, at random sizes and points.

    Parameters
    ----------
    energy : Energy
    trials, seed : int
        How many random sizes and points, and where they start.
    tolerance : float
        Allowed error, relative to 1 + the largest entry of the derivative.
    backend : {"numba", "reference"}
        What to check: machine code, or the interpreter of the derived program.
    kernel : Kernel, optional
        Check this kernel instead of a new one.

    Returns
    -------
    DerivativeReport
        `.ok`, `.worst`, and a table when printed.

    Raises
    ------
    NumericalError
        If no point is found at which the energy is finite.

    Examples
    --------
    >>> import sympy as sp
    >>> t, a = sp.Symbol("t", real=True), sp.Symbol("a", positive=True)
    >>> report = check_derivatives(Energy(sp.exp(-a*t**2), variables=[t], weights=[a]), trials=3, backend="reference")
    >>> report.ok
    True
    """
    kernel = compile(energy, backend=backend) if kernel is None else kernel
    report = DerivativeReport(energy.name, trials, tolerance)
    generator = np.random.default_rng(seed)
    for trial in range(trials):
        large = trial % LARGE_EVERY == LARGE_EVERY - 1
        points = draw_point(kernel, generator, 1 if large else 2, large=large)
        compare(kernel, points, report, trial, generator)
    return report


def compare(kernel: Kernel, points: Sequence[Point], report: DerivativeReport, trial: int, generator: Any) -> None:
    """Add the deviations at a batch of points of equal sizes; each point holds y, w and x together.

    Of a family, y has the axes of the family, and some of its members are compared (`members_of`).
    """
    references = [members_of(kernel.energy, p) for p in points]
    directions = _directions(references, generator)
    got = _results(kernel, points, directions, references[0])
    value, gradient, hessian = got["value+gradient+hessian"]
    flat = hessian.reshape(*gradient.shape[:2], -1)
    got["value+gradient+hessian"] = np.concatenate([value[:, :, None], gradient, flat], axis=2)
    for k, members in enumerate(references):
        _judge(report, {kind: values[k] for kind, values in got.items()}, members, trial, [
            reference.everything(directions[k, reference.row]) for reference in members
        ])  # fmt: skip


def _directions(references: Sequence[Sequence[_Reference]], generator: Any) -> Any:
    """(points, rows, m): a random direction for each member that is compared, 0 for the others."""
    first = references[0][0]
    directions = np.zeros((len(references), first.rows, first.m))
    for k, members in enumerate(references):
        for reference in members:
            directions[k, reference.row] = generator.standard_normal(first.m)
    return directions


def _judge(
    report: DerivativeReport,
    got: Mapping[str, Any],
    members: Sequence[_Reference],
    trial: int,
    expected: Sequence[Mapping[str, Any]],
    *,
    named: bool = True,
) -> None:
    """Add the deviations at one point: of each member, and of the adjoints, which are sums over them."""
    for kind, values in got.items():
        if kind in ADJOINTS:
            total = np.sum([e[kind] for e in expected], axis=0)
            _deviation(report, kind, values, total, members[0].entry if named else _number, trial)
            continue
        for reference, wanted in zip(members, expected, strict=True):
            entry = reference.entry if named else _number
            _deviation(report, kind, np.asarray(values)[reference.row], wanted[kind], entry, trial)


def _number(kind: str, k: int) -> str:
    return f"number {k}"


def compare_along(
    kernel: Kernel, points: Sequence[Point], report: DerivativeReport, trial: int, generator: Any
) -> None:
    """As `compare`, with matrices held against the reference along a random direction only.

    It needs the energy at 4m + p + q points instead of m**2/2 + m*p + q; an entry that is wrong shows, as no entry of
    the direction is 0, but is not named: `compare` does that.
    """
    references = [members_of(kernel.energy, p) for p in points]
    directions = _directions(references, generator)
    got = _results(kernel, points, directions, references[0])
    value, gradient, hessian = got["value+gradient+hessian"]
    for kind in ("hessian", "dense hessian", "cross"):
        if kind in got:
            got[kind] = np.einsum("bri,brij->brj", directions, got[kind])
    along = np.einsum("brij,brj->bri", hessian, directions)
    got["value+gradient+hessian"] = np.concatenate([value[:, :, None], gradient, along], axis=2)
    for k, members in enumerate(references):
        _judge(report, {kind: values[k] for kind, values in got.items()}, members, trial, [
            reference.along(directions[k, reference.row]) for reference in members
        ], named=False)  # fmt: skip


def _results(
    kernel: Kernel, points: Sequence[Point], directions: Any, references: Sequence[_Reference]
) -> dict[str, Any]:
    """What a kernel gives at a batch of points, by kind of derivative: (points, rows, ...), adjoints (points, ...)."""
    energy, first = kernel.energy, references[0]
    names = [[str(s) for s in role] for role in (energy.variables, energy.weights, energy.data)]
    batch = [{n: np.stack([p[n] for p in points]) for n in role} for role in names]
    v = directions.reshape(len(points), *first.family, first.m)

    def rows(array: Any) -> Any:
        return np.asarray(array).reshape(len(points), first.rows, *np.shape(array)[1 + len(first.family) :])

    got: dict[str, Any] = {
        "value": rows(kernel.value(*batch)), "gradient": rows(kernel.gradient(*batch)),
        "hessian": rows(dense(kernel.hessian(*batch))), "hvp": rows(kernel.hvp(v, *batch)),
    }  # fmt: skip
    if energy.weights:
        got["cross"] = rows(dense(kernel.cross(*batch)))
        got["cross_adjoint"] = _rows(kernel.cross_adjoint(v, *batch), len(points))
        got["weight_gradient"] = rows(kernel.weight_gradient(*batch))
    if first.data:
        got["data_adjoint"] = _rows(kernel.data_adjoint(v, *batch), len(points))
    if kernel.structure != "dense":
        got["dense hessian"] = rows(kernel.dense_hessian(*batch))
    value, gradient, hessian = kernel.value_gradient_hessian(*batch)
    got["value+gradient+hessian"] = rows(value), rows(gradient), rows(dense(hessian))
    return got


def dense(matrices: Any) -> Any:
    """A second derivative of `Kernel` as one array, (m, m) or (B, m, m) with any more axes, be it dense or sparse.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> dense([csr_array([[1.0, 0.0]]), csr_array([[0.0, 2.0]])])
    array([[[1., 0.]],
    <BLANKLINE>
           [[0., 2.]]])
    """
    if isinstance(matrices, list):
        return np.stack([dense(m) for m in matrices]) if matrices else np.empty((0, 0, 0))
    return matrices.toarray() if hasattr(matrices, "toarray") else matrices


def _rows(gradients: Mapping[str, Any], count: int) -> Any:
    return np.concatenate([np.asarray(g).reshape(count, -1) for g in gradients.values()], axis=1)


def _deviation(
    report: DerivativeReport, kind: str, got: Any, expected: Any, entry: Callable[[str, int], str], trial: int
) -> None:
    got, expected = np.atleast_1d(got).ravel(), np.atleast_1d(expected).ravel()
    errors = np.abs(got - expected) / (1 + np.abs(expected).max(initial=0.0))
    errors = np.where(np.isfinite(errors), errors, np.inf)
    if not errors.size:
        return
    k = int(errors.argmax())
    found = Deviation(kind, entry(kind, k), float(got[k]), float(expected[k]), float(errors[k]), trial)
    if kind not in report.by_kind or found.error > report.by_kind[kind].error:
        report.by_kind[kind] = found


# ---------------------------------------------------------------------------------------------- the reference


class _Reference:
    """All derivatives at one point, from the SymPy expression.

    Of a family, `member` is a number for each of its indices, and y has no axes of the family; it is number `row` of
    `rows` members, the product of the sizes `family`.
    """

    def __init__(self, energy: Energy, point: Point, member: tuple[int, ...] = ()) -> None:
        self.energy = energy
        self.point = {n: np.asarray(a) for n, a in point.items()}
        sizes = extents_of(energy, self.point)
        self.family = family_of(energy, sizes)
        self.rows = math.prod(self.family)
        self.row = int(np.ravel_multi_index(member, self.family)) if member else 0
        self.extents = {**sizes, **dict(zip(energy.over, member, strict=True))}
        self.variables = self._entries(energy.variables)
        self.weights = self._entries(energy.weights)
        self.data = self._entries([s for s in energy.data if str(s) not in energy.integer])
        self.m = len(self.variables)
        self.bases: dict[formula.Arithmetic, Point] = {}

    def _entries(self, symbols: Sequence[Any]) -> list[Entry]:
        return [(str(s), where) for s in symbols for where in np.ndindex(self.point[str(s)].shape)]

    def entry(self, kind: str, k: int) -> str:
        """What the k-th number of a derivative is."""
        label = {
            "gradient": [self.variables],
            "hvp": [self.variables],
            "hessian": [self.variables, self.variables],
            "dense hessian": [self.variables, self.variables],
            "cross": [self.variables, self.weights],
            "cross_adjoint": [self.weights],
            "weight_gradient": [self.weights],
            "data_adjoint": [self.data],
        }
        parts = label.get(kind)
        if parts is None:
            return f"entry {k}"
        positions = np.unravel_index(k, [len(p) for p in parts])
        return ", ".join(_label(*p[int(i)]) for p, i in zip(parts, positions, strict=True))

    def _base(self, arithmetic: formula.Arithmetic) -> Point:
        """The point in numbers of the arithmetic."""
        if arithmetic not in self.bases:
            point: Point = {}
            for name, array in self.point.items():
                numbers = np.empty(array.shape, dtype=object)
                for where in np.ndindex(array.shape):
                    numbers[where] = (
                        int(array[where]) if name in self.energy.integer else arithmetic.number(float(array[where]))
                    )
                point[name] = numbers
            self.bases[arithmetic] = point
        return self.bases[arithmetic]

    def value(self, arithmetic: formula.Arithmetic, changes: Mapping[Entry, Any]) -> Any:
        point = dict(self._base(arithmetic))
        for name in {name for name, _ in changes}:
            point[name] = point[name].copy()
        for (name, where), change in changes.items():
            point[name][where] = point[name][where] + change
        plain = {name: array if array.ndim else array[()] for name, array in point.items()}
        return formula.value(self.energy, plain, self.extents, arithmetic)

    def _precise(self, changes: Mapping[Entry, Any]) -> Any:
        value = self.value(formula.PRECISE, changes)
        if abs(mpmath.im(value)) > mpmath.mpf(10) ** -40:
            raise NumericalError(f"energy {self.energy.name!r} is not real at this point")
        return mpmath.re(value)

    def _stepped(self, *directions: Direction) -> Any:
        """The energy a small step along each of the directions away from the point."""
        changes: dict[Entry, Any] = {}
        for direction in directions:
            for entry, component in direction:
                changes[entry] = changes.get(entry, 0) + STEP * mpmath.mpf(component)
        return self._precise(changes)

    def _mixed(self, rows: Sequence[Direction], columns: Sequence[Direction], *, symmetric: bool = False) -> Any:
        """Second derivatives along each pair of directions, by forward differences; the error is of order STEP."""
        here = self._precise({})
        left = [self._stepped(a) for a in rows]
        right = left if symmetric else [self._stepped(b) for b in columns]
        result = np.empty((len(rows), len(columns)))
        for i, a in enumerate(rows):
            for j, b in enumerate(columns[: i + 1] if symmetric else columns):
                result[i, j] = float((self._stepped(a, b) - left[i] - right[j] + here) / STEP**2)
                if symmetric:
                    result[j, i] = result[i, j]
        return result

    def gradient(self, entries: Sequence[Entry]) -> Any:
        """First derivatives, by a complex step where the formula allows it."""
        if formula.is_analytic(self.energy):
            try:
                step = 1e-30
                return np.array([self.value(formula.COMPLEX, {e: 1j * step}).imag / step for e in entries])
            except (OverflowError, ValueError, ZeroDivisionError):
                pass
        return np.array([float((self._precise({e: STEP}) - self._precise({e: -STEP})) / (2 * STEP)) for e in entries])

    def hessian(self) -> Any:
        variables: list[Direction] = [((e, 1.0),) for e in self.variables]
        return self._mixed(variables, variables, symmetric=True)

    def along(self, direction: Any) -> dict[str, Any]:
        """Everything, matrices along the direction only."""
        variables, weights, data = ([((e, 1.0),) for e in part] for part in (self.variables, self.weights, self.data))
        along = tuple((e, float(d)) for e, d in zip(self.variables, direction, strict=True))
        with mpmath.workdps(DIGITS):
            value = float(self._precise({}))
            gradient, by_weights = self.gradient(self.variables), self.gradient(self.weights)
            mixed = self._mixed([along], [*variables, *weights, *data])[0]
        hvp, cross, data_adjoint = np.split(mixed, [self.m, self.m + len(weights)])
        return {
            "value": value,
            "gradient": gradient,
            "hessian": hvp,
            "dense hessian": hvp,
            "hvp": hvp,
            "cross": cross,
            "cross_adjoint": cross,
            "data_adjoint": data_adjoint,
            "weight_gradient": by_weights,
            "value+gradient+hessian": np.concatenate([[value], gradient, hvp]),
        }

    def everything(self, direction: Any) -> dict[str, Any]:
        variables, weights, data = ([((e, 1.0),) for e in part] for part in (self.variables, self.weights, self.data))
        along = tuple((e, float(d)) for e, d in zip(self.variables, direction, strict=True))
        with mpmath.workdps(DIGITS):
            value = float(self._precise({}))
            gradient, by_weights = self.gradient(self.variables), self.gradient(self.weights)
            hessian = self.hessian()
            cross = self._mixed(variables, weights)
            data_adjoint = self._mixed([along], data)[0]
        return {
            "value": value,
            "gradient": gradient,
            "hessian": hessian,
            "dense hessian": hessian,
            "hvp": hessian @ direction,
            "cross": cross,
            "cross_adjoint": direction @ cross if self.weights else np.empty(0),
            "data_adjoint": data_adjoint,
            "weight_gradient": by_weights,
            "value+gradient+hessian": np.concatenate([[value], gradient, hessian.ravel()]),
        }


def _label(name: str, where: tuple[int, ...]) -> str:
    return f"{name}[{', '.join(map(str, where))}]" if where else name


def members_of(energy: Energy, point: Point) -> list[_Reference]:
    """References at a point of a family, for up to `MOST_MEMBERS` of its members; one for an energy that is none."""
    if not energy.over:
        return [_Reference(energy, point)]
    names = [str(s) for s in energy.variables]
    ranks = {name: len(energy.shapes[name]) for name in names}
    family = np.shape(point[names[0]])[: len(energy.over)]
    last, found = math.prod(family) - 1, []
    for number in np.unique(np.linspace(0, last, MOST_MEMBERS).astype(int)) if last >= 0 else ():
        member = tuple(int(k) for k in np.unravel_index(number, family))
        own = {n: np.asarray(a)[member] if n in ranks else a for n, a in point.items()}
        found.append(_Reference(energy, own, member))
    return found


# ---------------------------------------------------------------------------------------------- random points


def draw_point(
    kernel: Kernel, generator: Any, count: int = 2, attempts: int = 200, *, large: bool = False
) -> list[Point]:
    """`count` random points of equal sizes at which the energy and its derivatives are finite and moderate.

    Extents are 1 to 3 at first; `large`: one of them is 9 to 11, so that loops which are unrolled run in full.
    """
    for attempt in range(attempts):
        sizes = {e: int(generator.integers(1, 4) + attempt // 40) for e in kernel.energy.extents}
        if large and sizes:
            sizes[kernel.energy.extents[int(generator.integers(len(sizes)))]] = int(generator.integers(9, 12))
        points = [random_point(kernel.energy, sizes, generator, positive=attempt % 4 == 3) for _ in range(count)]
        if all(_is_moderate(kernel, p) for p in points):
            return points
    raise NumericalError(
        f"energy {kernel.energy.name!r}: no point was found in {attempts} attempts at which the energy "
        "and its derivatives are finite; check_derivatives draws numbers of about unit size"
    )


def _is_moderate(kernel: Kernel, point: Point) -> bool:
    """Whether the energy can be evaluated here, is real in precise arithmetic, and has moderate derivatives.

    The kernel's Hessian saves the precise one where it is finite; where it is not, that may be the kernel's fault.
    """
    energy = kernel.energy
    y, w, x = ({str(s): point[str(s)] for s in role} for role in (energy.variables, energy.weights, energy.data))
    try:
        hessian = kernel.dense_hessian(y, w, x)
        with mpmath.workdps(DIGITS):
            references = members_of(energy, point)
            values = [float(reference._precise({})) for reference in references]
            if np.isfinite(values).all() and not np.isfinite(hessian).all():
                hessian = np.stack([reference.hessian() for reference in references])
    except (InputError, NumericalError, ArithmeticError, ValueError, IndexError, TypeError):
        return False
    finite = np.isfinite(values).all() and np.isfinite(hessian).all()
    return bool(finite and np.abs(hessian).max(initial=0.0) < LARGEST)


def points(energy: Energy, count: int = 1) -> Any:
    """A hypothesis strategy for random points of an energy: dicts (y, w, x), batched if count > 1.

    Examples
    --------
    >>> from hypothesis import given
    >>> import sympy as sp
    >>> t, a = sp.Symbol("t", real=True), sp.Symbol("a", positive=True)
    >>> energy = Energy(a*t**2, variables=[t], weights=[a])
    >>> @given(points(energy))
    ... def test_is_positive(point):
    ...     y, w, x = point
    ...     assert compile(energy, backend="reference").value(y, w, x) >= 0
    >>> test_is_positive()
    """
    from hypothesis import strategies

    kernel = compile(energy, backend="reference")

    def make(seed: int) -> tuple[Point, Point, Point]:
        drawn = draw_point(kernel, np.random.default_rng(seed), count)
        roles = (energy.variables, energy.weights, energy.data)
        names: Iterator[list[str]] = ([str(s) for s in role] for role in roles)
        y, w, x = ({n: drawn[0][n] if count == 1 else np.stack([p[n] for p in drawn]) for n in role} for role in names)
        return y, w, x

    return strategies.integers(0, 2**32 - 1).map(make)


def energies() -> Any:
    """A hypothesis strategy for random energies over most of the language.

    Scalars, vectors and matrices in every role, nested, partial and triangular sums, products and extremes, offsets,
    gathers, lets, kinks and functions.
    """
    from hypothesis import strategies

    return strategies.integers(0, 2**48 - 1).map(lambda seed: random_energy(random.Random(seed)))


def families() -> Any:
    """A hypothesis strategy for random families: energies as `energies` draws them, with `over=`."""
    from hypothesis import strategies

    return strategies.integers(0, 2**48 - 1).map(lambda seed: random_family(random.Random(seed)))
