"""What a solution says in words: why an instance ended as it did and what to do, and a batch in ten lines."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..compiler.calls.evaluate import run_one
from ..compiler.nonfinite import NotFinite, by_role, first_in_rows, instance_of, member_of
from ..energies.display import printable
from .algebra.linear_algebra import FLAT
from .descend import ROUNDING
from .run import run_problem
from .solution import Solution, Status
from .statuses import ABYSS, FAR

if TYPE_CHECKING:
    from .problem import Problem

Floats = NDArray[np.float64]

LARGEST_SQUARED = 1e154
"""Derivatives above this count as infinite: their squares are."""

SHOWN = 3
"""How many unknowns a sentence names."""


@dataclass(frozen=True)
class Report:
    """Why an instance ended as it did; print it.

    Attributes
    ----------
    instance : int or None
        None for an unbatched solution.
    member : dict
        Of a family, the values of its indices.
    status : Status
    numbers : dict
        energy, gradient_norm, curvature, iterations, evaluations.
    finding : tuple of str
        What was found, a sentence each.
    advice : str
        What to do; empty where nothing needs to be done.
    not_finite : NotFinite or None
        Where the first number that is not finite comes from, as `kernel.explain` finds it.
    """

    energy: str
    instance: int | None
    status: Status
    gtol: float
    numbers: Mapping[str, float]
    finding: tuple[str, ...]
    advice: str
    not_finite: NotFinite | None = None
    member: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        place = "" if self.instance is None else f", instance {self.instance}"
        if self.member:
            place += f", member {', '.join(f'{index} = {value}' for index, value in self.member.items())}"
        n = self.numbers
        known = [f"energy {n['energy']:.9g}"]
        if not math.isnan(n["gradient_norm"]):
            known.append(f"gradient norm {n['gradient_norm']:.2g} (gtol {self.gtol:g})")
        if not math.isnan(n["curvature"]):
            known.append(f"lowest curvature {n['curvature']:.2g}")
        lines = [
            f"energy {self.energy!r}{place}: {self.status.name} after {_many(n['iterations'], 'iteration')} "
            f"({_many(n['evaluations'], 'evaluation')})",
            f"  {', '.join(known)}",
            *(f"  {sentence}" for sentence in self.finding),
        ]
        if self.not_finite is not None:
            lines += [f"    {line}" for line in str(self.not_finite).splitlines()]
        return "\n".join([*lines, *([f"  what to do: {self.advice}"] if self.advice else [])])

    __repr__ = __str__


Told = tuple[tuple[str, ...], str, NotFinite | None]


def explain(solution: Solution, row: int) -> Report:
    """The report of one row: an instance, or a member of one; see `Solution.explain`."""
    status = Status(int(solution.integers[row, 2]))
    numbers = {
        "energy": float(solution.energies[row]),
        "gradient_norm": float(solution.reals[row, 0]),
        "curvature": float(solution.curvatures[row]),
        "iterations": int(solution.integers[row, 0]),
        "evaluations": int(solution.integers[row, 1]),
    }
    finding, advice, not_finite = _TELLERS[status](_Instance(solution, row))
    if solution.problem.factorised[row]:
        finding = *finding, "its last steps were made by factors of the sparse Hessian: conjugate gradients took long"
    kernel, inputs = solution.kernel, solution.inputs
    number = inputs.instance(row) if solution.batched else None
    member = {str(index): value for index, value in member_of(kernel, inputs, row).items()}
    return Report(kernel.name, number, status, solution.gtol, numbers, finding, advice, not_finite, member)


class _Instance:
    """One instance of a solution, or member of one, for those who tell about it."""

    def __init__(self, solution: Solution, row: int) -> None:
        self.kernel, self.gtol, self.row = solution.kernel, solution.gtol, row
        self.y = solution.y[row]
        self.energy, self.noise = float(solution.energies[row]), ROUNDING * abs(solution.energies[row])
        self.norm, self.curvature = float(solution.reals[row, 0]), float(solution.curvatures[row])
        self.iterations = int(solution.integers[row, 0])
        self.problem: Problem = solution.problem
        self.inputs = solution.inputs
        everything = instance_of(solution.kernel, solution.inputs, solution.y, row)
        self.point = by_role(solution.kernel.energy, everything)

    def at(self, iterations: int) -> Problem:
        """The instance after so many iterations, minimised again."""
        part = self.problem.part(np.array([self.row]), iterations)
        run_problem(part)
        return part

    def not_finite(self) -> NotFinite | None:
        """Which number is not finite where it stands."""
        return first_in_rows(self.kernel, self.inputs, self.y[None], range(self.row, self.row + 1), batched=False)

    def gradient(self) -> Floats:
        """The gradient where it stands, (m,)."""
        return run_one(self.kernel.entry("gradient"), self.inputs, self.y, self.row)[1]

    def hessian(self) -> Any:
        """The Hessian where it stands, (m, m), sparse where the kernel's is."""
        if self.kernel.structure == "dense":
            out = run_one(self.kernel.entry("hessian"), self.inputs, self.y, self.row)[1]
            return out.reshape(len(self.y), len(self.y))
        pattern, slots = self.kernel.hessian_slots(self.inputs, self.y, self.row)
        return pattern.matrix(pattern.fill(slots))

    def name(self, k: int) -> str:
        """What the k-th unknown is called."""
        return unknown_name(self.kernel, self.inputs, int(k))

    def largest(self, sizes: Floats) -> list[int]:
        """The unknowns of the largest sizes, at most `SHOWN`, those that are nothing beside the first left out."""
        order = np.argsort(-sizes, kind="stable")[:SHOWN]
        return [int(k) for k in order if sizes[k] > 1e-3 * sizes[order[0]]]


def _many(count: float, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def unknown_name(kernel: Any, inputs: Any, k: int) -> str:
    """What the k-th unknown is called: `t`, or `y[3, 1]`."""
    for name, array in kernel.variables.unpack(np.empty(inputs.m), inputs.sizes).items():
        size, shape = np.size(array), np.shape(array)
        if k < size:
            where = np.unravel_index(k, shape) if shape else ()
            return printable(name) + (f"[{', '.join(str(int(i)) for i in where)}]" if shape else "")
        k -= size
    raise IndexError(k)


# ---------------------------------------------------------------------------------------------- one for each status


def _converged(one: _Instance) -> Told:
    small = f"the gradient norm {one.norm:.2g} is within gtol"
    curved = "the energy curves upwards in every direction: a minimum"
    if one.curvature != one.curvature:  # NaN
        curved = "no curvature is negative beyond rounding; the lowest was not looked for"
    elif not one.curvature > 0.0:
        curved = (
            f"no curvature is negative beyond rounding; the lowest is {one.curvature:.2g}: a minimum that may be flat "
            "in some direction"
        )
    return (f"{small} and {curved}",), "", None


def _stalled(one: _Instance) -> Told:
    most = len(one.y) * one.norm**2 / (2.0 * one.curvature) if one.curvature > 0.0 else math.inf
    if most <= 100.0 * one.noise:
        finding = (
            f"a Newton step could lower the energy by {most:.1g} at most, of which rounding hides {one.noise:.1g} "
            f"({ROUNDING:g} of it): a minimum as good as double precision gives"
        )
        advice = (
            f"nothing, it counts as usable; gtol={_round_up(one.norm):g} would call it CONVERGED, and a constant left "
            "out of the energy, or sums of smaller terms, would let the gradient fall further"
        )
        return (finding,), advice, None
    finding = (
        f"no step lowers the energy, although the gradient norm is {one.norm:.2g}: the energy has a kink here (Abs, "
        "Max, Min, Piecewise, sqrt at 0), or its value and its gradient do not belong together"
    )
    advice = "smooth the kink (wb.pseudo_huber, wb.softplus); wb.check_derivatives(energy) compares gradient and value"
    return (finding,), advice, None


def _iteration_limit(one: _Instance) -> Told:
    limit = one.problem.max_iterations
    half = limit // 2
    before = [one.at(0), one.at(half)]
    norms, energies = [float(p.reals[0, 0]) for p in before], [float(p.energies[0]) for p in before]
    finding = [
        f"gradient norm: {norms[0]:.2g} at the start, {norms[1]:.2g} after {half} iterations, {one.norm:.2g} now",
        f"energy: {energies[0]:.6g} at the start, {energies[1]:.6g} after {half}, {one.energy:.6g} now",
    ]
    advice = f"raise max_iterations (now {limit})"
    moved = np.abs(one.y - before[1].y[0])
    if limit < 10:
        pass
    elif moved.max() > 1e6 * (1.0 + np.abs(before[0].y).max()):
        names = ", ".join(one.name(k) for k in one.largest(moved))
        finding.append(f"{names} moved by {moved.max():.1g} since then: the energy may have no minimum that way")
        advice = f"keep {names} near with a penalty or bounds, or {advice}"
    elif one.norm < 0.5 * norms[1]:
        advice += ": it is still falling"
    else:
        advice += (
            "; the gradient hardly falls any more, so look at units that differ by orders of magnitude between "
            "unknowns, at kinks, and at the path: wb.plot_path(solution, instance)"
        )
    return tuple(finding), advice, None


def _not_finite(one: _Instance) -> Told:
    ranked = one.problem.seeds is not None
    which = ""
    if ranked:
        which = "no candidate has a finite energy and derivatives; this is the first of them: "
    for role, arrays in zip(("weight", "data"), one.point[1:], strict=True):
        for name, array in arrays.items():
            bad = np.argwhere(~np.isfinite(array))
            if len(bad):
                place = f"[{', '.join(map(str, bad[0]))}]" if np.ndim(array) else ""
                value = np.asarray(array)[tuple(bad[0])]
                return (f"the {role} {printable(name)}{place} is {value}",), "drop or impute it", None
    bad_unknowns = np.flatnonzero(~np.isfinite(one.y))
    if len(bad_unknowns):
        k = int(bad_unknowns[0])
        what = "start" if not ranked else "candidate"
        return (f"{which}the {what} has {one.name(k)} = {one.y[k]}",), f"give a finite {what}", None
    found = one.not_finite()
    if found is not None and found.kind != "cross":
        advice = "start where the energy and its derivatives are finite, or change the term"
        return (which or "the start has no finite energy and derivatives:",), advice, found
    sizes = {"gradient": np.abs(one.gradient()).max(initial=0.0)}
    hessian = one.hessian()
    sizes["Hessian"] = np.abs(hessian.data if hasattr(hessian, "tocoo") else hessian).max(initial=0.0)
    name = max(sizes, key=lambda kind: sizes[kind])
    finding = (
        f"{which}the largest entry of the {name} at the start is {sizes[name]:.1g}; the sum of squares overflows "
        f"above {LARGEST_SQUARED:g}"
    )
    return (finding,), "rescale the energy or its unknowns, or start nearer", None


def _unbounded(one: _Instance) -> Told:
    start, before = one.at(0), one.at(max(0, one.iterations - 1))
    moved = np.abs(one.y - start.y[0])
    chosen = one.largest(moved)
    sentences = []
    if moved.max(initial=0.0) > 0.0:
        ways = ", ".join(f"{one.name(k)} from {start.y[0, k]:.3g} to {one.y[k]:.3g}" for k in chosen)
        sentences.append(f"{_many(one.iterations, 'step')} led {ways}")
    far = not one.energy < ABYSS
    reason = f"more than {FAR:g} (1 + |start|) away" if far else f"it fell below {ABYSS:g}"
    sentences.append(
        f"the energy went from {float(start.energies[0]):.6g} to {one.energy:.6g} and was still falling: {reason}"
    )
    if one.kernel.quadratic and math.isfinite(one.curvature):  # one step, too few to tell from
        power: str | None = f"the distance to the power of {2 if one.curvature < 0.0 else 1}"
    else:
        power = _power(float(before.energies[0]), one.energy, np.abs(before.y).max(), np.abs(one.y).max())
    if power is not None:
        sentences.append(f"far out it falls like {power}")
    names = ", ".join(one.name(k) for k in chosen) or "the unknowns"
    advice = (
        f"is the sign of the energy right? if it is, a penalty such as a small multiple of the square of {names}, or "
        "bounds, keep a minimum near; or start in the valley that is meant"
    )
    return tuple(sentences), advice, None


def _power(before: float, now: float, near: float, far: float) -> str | None:
    """How a negative energy grows in size between two distances, as a power of the distance, where it is one."""
    if not (now < before < 0.0 and math.isfinite(now) and far > 1.5 * near > 0.0):
        return None
    power = math.log(now / before) / math.log(far / near)
    if power > 20.0:
        return "an exponential"
    return f"the distance to the power of {power:.2g}" if power > 0.02 else "the logarithm of the distance, or slower"


def _saddle(one: _Instance) -> Told:
    finding = f"the gradient norm {one.norm:.2g} is within gtol, but the lowest curvature is {one.curvature:.3g}"
    direction = downwards(one.hessian())
    if direction is not None:
        parts = ", ".join(f"{direction[k]:.2g} in {one.name(k)}" for k in one.largest(np.abs(direction)))
        finding += f"; the direction is {parts}"
    advice = (
        "start elsewhere (restarts= tries points around the start); a kink here would explain it, and "
        "wb.check_derivatives(energy) would show a Hessian that is wrong"
    )
    return (finding, "no step along it, of any length that was tried, found a lower energy"), advice, None


def downwards(hessian: Any) -> Floats | None:
    """The unit vector of lowest curvature, its largest entry positive; None where none curves down."""
    if hasattr(hessian, "tocoo"):
        from .algebra.curvature import curvature  # here: it needs scipy.sparse

        found: Floats | None = curvature(hessian).downwards
        return found
    values, vectors = np.linalg.eigh(hessian)
    if not values[0] < -FLAT * np.abs(values).max():
        return None
    vector: Floats = vectors[:, 0] * np.sign(vectors[np.argmax(np.abs(vectors[:, 0])), 0])
    return vector


_TELLERS: dict[Status, Callable[[_Instance], Told]] = {
    Status.CONVERGED: _converged,
    Status.STALLED: _stalled,
    Status.ITERATION_LIMIT: _iteration_limit,
    Status.NOT_FINITE: _not_finite,
    Status.UNBOUNDED: _unbounded,
    Status.SADDLE: _saddle,
}


def _round_up(number: float) -> float:
    """The next power of ten."""
    return float(10.0 ** math.ceil(math.log10(number)))


# ---------------------------------------------------------------------------------------------- many instances

QUANTILES = ("lowest", 0.0), ("5 %", 0.05), ("median", 0.5), ("95 %", 0.95), ("highest", 1.0)


def counts_text(solution: Solution) -> str:
    """`3991 CONVERGED, 9 ITERATION_LIMIT`."""
    counts = np.bincount(solution.integers[:, 2], minlength=len(Status))
    return ", ".join(f"{counts[status]} {status.name}" for status in Status if counts[status]) or "none"


def summary(solution: Solution) -> str:
    """A batch in ten lines; see `Solution.__str__`."""
    rows, unknowns = solution.y.shape
    one = solution.rows_text[:-1]
    counted = _many(rows, one) if len(solution.lead) < 2 else f"{' x '.join(map(str, solution.lead))} {one}s"
    head = (
        f"energy {solution.kernel.name!r}: {counted}, {_many(unknowns, 'unknown')} each, by {solution.problem.method}"
    )
    lines = [head, f"  {counts_text(solution)}"]
    if not rows:
        return "\n".join(lines)
    columns = {
        "energy": solution.energies,
        "gradient norm": solution.reals[:, 0],
        "curvature": solution.curvatures,
        "iterations": solution.integers[:, 0],
        "evaluations": solution.integers[:, 1],
    }
    lines.append(f"  {'':14}" + "".join(f"{name:>11}" for name, _ in QUANTILES))
    for name, values in columns.items():
        finite = values[np.isfinite(values)]
        if len(finite):
            cells = np.quantile(finite, [q for _, q in QUANTILES])
            lines.append(f"  {name:14}" + "".join(f"{cell:11.3g}" for cell in cells))
    if solution.minima is not None:
        counts = np.bincount(np.ravel(solution.minima.count))
        shown = ", ".join(f"{number} in {_many(int(count), one)}" for number, count in enumerate(counts) if count)
        lines[1] += f"; minima: {shown}"
    failed = solution.failed_rows
    if len(failed):
        statuses = solution.integers[failed, 2]
        first = ", ".join(
            f"{solution.listed([k])} {Status(s).name}" for k, s in zip(failed[:4], statuses[:4], strict=True)
        )
        more = f", ... ({len(failed)} in solution.failed)" if len(failed) > 4 else ""
        place = solution.listed(failed[:1])
        lines.append(f"  failed: {first}{more}")
        lines.append(f"  solution.explain({place}) says why and what to do; solution.raise_if_failed() raises")
    return "\n".join(lines)
