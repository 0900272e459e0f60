"""Judging all the distinct minima of a batch: how they share its loss, and the sums of that over blocks (selection.py).

    minima of some blocks of 64 instances  --judge_minima-->  SharedSums  --Selection, combined-->  a step

For an instance with members f (one, if it is no family), of which each has the minima c of energy E_fc:

    l_fc  = the loss with member f at its minimum c, and the others at their lowest
    p_fc  = exp(-E_fc / T) / sum_k exp(-E_fk / T)
    lbar  = l_0 + sum_f sum_c p_fc (l_fc - l_0)

Of one member, lbar = sum_c p_c l_c. Of several, it is what the losses of all combinations would be shared as, wherever
the loss is a sum over members, and without the combinations in which two members are not at their lowest: as T becomes
small, these do not count. The derivative is that of selection.py, for each member.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..compiler.calls.evaluate import BLOCK, run
from ..energies.errors import InputError
from ..runtime.solution import Solution
from .batches import Batch, place
from .coordinates import Coordinates
from .derivative.blocks import block_sums, in_order
from .derivative.damped import LEFT_OUT, NOT_FINITE, SHIFTED, SINGULAR, USED
from .derivative.implicit import damped_blocks, unusable
from .judge import (
    Judged,
    Sums,
    bind_loss,
    check_finite,
    count_dominated,
    evaluate_loss,
    leave_out,
    refuse_singular_step,
    to_minima,
)
from .minima_rows import Rows, output_of, rows_of, solution_of
from .model import Minima, Model
from .output import instances_of

if TYPE_CHECKING:
    from .selection import Selection

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Scales(NamedTuple):
    """What shares are measured by; NaN where no batch has told yet: then the lowest minima have all of the loss.

    gap     m, the mean of E_1 - E_0
    loss    the mean size of the loss
    """

    gap: float = math.nan
    loss: float = math.nan


class SharedSums(NamedTuple):
    """What blocks of 64 instances contribute to a step.

    Attributes
    ----------
    sums : Sums
        Of the lowest minima; the gradient is that of the shared loss at a temperature that is held.
    raised : (K, p)
        The sum of dE_1/dw - dE_0/dw.
    gaps, pairs : (K,), int
        The sum of E_1 - E_0, and of how many.
    sizes : (K,)
        The sum of the sizes of the shared losses.
    sensitivity : (K,)
        That of T times the derivative of the shared losses by T.
    """

    sums: Sums
    raised: Floats
    gaps: Floats
    pairs: int
    sizes: Floats
    sensitivity: Floats


class Totals(NamedTuple):
    """The means of a batch: of E_1 - E_0 over pairs, the others over instances; `raised` is (p,)."""

    raised: Floats
    gap: float
    size: float
    sensitivity: float


def totals(parts: Sequence[SharedSums]) -> Totals:
    """From the sums of all parts of a batch, in their order."""
    pairs, count = sum(part.pairs for part in parts), sum(part.sums.instances for part in parts)

    def total(name: str) -> Any:
        return in_order((block for part in parts for block in getattr(part, name)), getattr(parts[0], name).shape[1:])

    size, sensitivity = float(total("sizes")) / count, float(total("sensitivity")) / count
    if pairs == 0:
        return Totals(total("raised"), math.nan, size, sensitivity)
    return Totals(total("raised") / pairs, float(total("gaps")) / pairs, size, sensitivity)


def judge_minima(
    model: Model,
    batch: Batch,
    minima: Minima,
    coordinates: Coordinates,
    weights: Mapping[str, Floats],
    *,
    step: int,
    damping: float,
    unconverged: str,
    selection: Selection,
    scales: Scales,
) -> SharedSums:
    """`judge.judge` of all the distinct minima of a batch, or of a part of it that begins a block.

    Loss and numbers of instances are those of the lowest minima.
    """
    who = f"fit: {place(batch, step)}"
    (kernel,), (lowest,) = model.kernels, model.solutions(minima)
    count, members = instances_of(lowest), max(1, lowest.inputs.members)
    if count == 0:
        raise InputError(f"{who}: the batch has no instances")
    codes = np.full(len(lowest.y), USED, dtype=np.int64)
    marked = unusable(lowest)
    used = np.ones(count, dtype=bool)
    if marked.any():
        used = leave_out([lowest], [marked], [codes], count, unconverged=unconverged, who=who, step=step)
    rows = rows_of(lowest, used)
    flat = solution_of(lowest, rows.place, rows.number)
    cases = _cases(rows, flat, lowest, minima, count)
    instance = cases.rows.instance
    known = used[instance] & cases.rows.counts
    inputs = bind_loss(model, batch, minima, weights, count, who=who).rows(instance)
    judged = evaluate_loss(model, inputs, cases.minima)
    check_finite(judged, known, who=who, step=step, instances=instance)
    values = np.where(known, judged.values, 0.0)
    energies = np.where(rows.counts & used[rows.instance], flat.energies, 0.0)
    temperature = selection.temperature_at(step, scales.gap)
    sharing = _share(temperature, selection, scales, energies, values[cases.of_row], rows)
    shares = np.where(known, cases.shares(sharing.shares, count), 0.0)

    direct = np.zeros((len(cases.rows.owner), coordinates.start.size))
    (slopes,) = to_minima(model, cases.minima, _weighted(judged, shares), known, direct, coordinates, who=who)
    by_energy = sharing.by_energy
    if judged.by_energy is not None:
        given = np.where(known[:, None], judged.by_energy.reshape(-1, members), 0.0)
        by_energy = by_energy + cases.by_row(shares[:, None, None] * given[:, :, None])[:, 0]
    row_codes, largest = np.where(rows.counts, codes[rows.place], LEFT_OUT), list[float]()
    slope = cases.by_row(slopes.reshape(-1, members, slopes.shape[1]))
    own = damped_blocks(kernel, flat, slope, damping, row_codes, largest, members=1)
    if damping == 0.0:
        _refuse_singular(kernel, lowest, rows, row_codes, who)
    by_energies, raised = _energy_blocks(kernel, flat, (by_energy, sharing.pairs))
    places, blocks = coordinates.places(kernel.weights.names), -(-count // BLOCK)
    gradient, raising = cases.rows.sums(direct, blocks), np.zeros((blocks, coordinates.start.size))
    gradient[:, places] += rows.sums(own + by_energies, blocks)
    raising[:, places] = rows.sums(raised, blocks)

    ends = row_codes[(rows.number == 0) & rows.counts]
    good = used & ((ends == USED) | (ends == SHIFTED)).reshape(count, members).all(axis=1)
    losses = values[(cases.rows.number == 0) & cases.rows.counts]
    sums = Sums(
        block_sums(np.where(good, losses, 0.0)),
        gradient,
        counted=int(np.count_nonzero(good)),
        instances=count,
        unconverged=int(np.count_nonzero(marked | (ends == NOT_FINITE))),
        shifted=int(np.count_nonzero(ends == SHIFTED)),
        dominated=count_dominated(lowest, damping),
        members=len(ends),
        largest=max(largest, default=0.0),
        shared=None,
    )
    return SharedSums(
        sums,
        raising,
        gaps=block_sums(np.bincount(rows.instance, sharing.pairs * energies, count)),
        pairs=int(np.count_nonzero(sharing.pairs > 0.0)),
        sizes=block_sums(np.bincount(instance, np.abs(shares * values), count)),
        sensitivity=block_sums(np.bincount(rows.instance, sharing.sensitivity, count)),
    )


class _Cases(NamedTuple):
    """What a loss is asked about: the instances at their lowest minima, and with one member at another one.

    Attributes
    ----------
    rows : Rows
        Which member is at which minimum, (A,); number 0 stands for all at their lowest.
    minima : Solution or OutputSolution
        The same.
    at : (A, members)
        The row of the minimum at which each member is.
    of_row : (R,)
        For each row of a minimum the case in which its member is there, and the others are at their lowest.
    """

    rows: Rows
    minima: Minima
    at: Integers
    of_row: Integers

    def shares(self, shares: Floats, count: int) -> Floats:
        """What multiplies the loss of each case, (A,), from the shares of the rows."""
        rows, member = self.rows, self.rows.place % self.rows.members
        others = np.where(rows.counts & (rows.number > 0), shares[self.at[np.arange(len(member)), member]], 0.0)
        lowest = 1.0 - np.bincount(rows.instance, others, count)
        return np.where(rows.number > 0, others, np.where(rows.counts, lowest[rows.instance], 0.0))

    def by_row(self, parts: Floats) -> Floats:
        """What all cases give to each row, (R, k), from what they give to each of their members, (A, members, k)."""
        if self.rows.members == 1:
            return parts[:, 0]
        total = np.zeros((len(self.of_row), parts.shape[2]))
        np.add.at(total, self.at, parts)
        return total


def _cases(rows: Rows, flat: Solution, lowest: Solution, minima: Minima, count: int) -> _Cases:
    members = rows.members
    if members == 1:
        same = np.arange(len(rows.place))
        return _Cases(rows, output_of(minima, flat, rows.instance), same[:, None], same)
    cases = rows.only((rows.number > 0) | (rows.place % members == 0), count)
    assert lowest.minima is not None
    shape = len(lowest.y), len(lowest.minima)
    row_of, case_of = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    row_of[rows.place[rows.counts], rows.number[rows.counts]] = np.flatnonzero(rows.counts)
    case_of[cases.place[cases.counts], cases.number[cases.counts]] = np.flatnonzero(cases.counts)
    places = cases.instance[:, None] * members + np.arange(members)
    numbers = np.where(places == cases.place[:, None], cases.number[:, None], 0)
    solution = solution_of(lowest, places.ravel(), numbers.ravel())
    whose = np.where(rows.number == 0, rows.instance * members, rows.place)
    return _Cases(
        cases, output_of(minima, solution, cases.instance), row_of[places, numbers], case_of[whose, rows.number]
    )


class _Sharing(NamedTuple):
    """Of each row, (R,): its share of the loss, what multiplies its dE/dw, and what it adds to T dlbar/dT; `pairs` is 1
    for runners-up and -1 for the lowest minima below them. All are 0 for copies."""

    shares: Floats
    by_energy: Floats
    sensitivity: Floats
    pairs: Floats


def _share(
    temperature: float, selection: Selection, scales: Scales, energies: Floats, losses: Floats, rows: Rows
) -> _Sharing:
    """How the minima of each member share the loss."""
    whose, lowest, zeros = rows.place, (rows.number == 0) & rows.counts, np.zeros(len(energies))
    first, second = np.flatnonzero(lowest), np.flatnonzero((rows.number == 1) & rows.counts)
    above = energies - energies[first][whose]
    pairs = zeros.copy()
    pairs[second], pairs[second - 1] = 1.0, -1.0
    if not temperature > 0.0:  # not known yet, or all minima are as low as the lowest
        return _Sharing(lowest.astype(float), zeros, zeros, pairs)
    if selection.direct:
        by_energy, tilt = zeros.copy(), temperature / scales.loss
        if 0.0 < tilt < math.inf:
            tilted = np.where(rows.counts, tilt * losses, math.inf)
            for sign in (1.0, -1.0):
                chosen = _lowest_rows(np.where(rows.counts, above + sign * tilted, math.inf), whose, first)
                by_energy[chosen] += sign / (2.0 * tilt)
        return _Sharing(lowest.astype(float), by_energy, zeros, pairs)
    shares = np.where(rows.counts, np.exp(-above / temperature), 0.0)
    shares /= np.bincount(whose, shares)[whose]
    excess = shares * (losses - np.bincount(whose, shares * losses)[whose])
    return _Sharing(shares, -excess / temperature, excess * above / temperature, pairs)


def _lowest_rows(values: Floats, whose: Integers, first: Integers) -> Integers:
    """The row of the least value of every member, the first of equals; rows of a member follow one another."""
    least = np.minimum.reduceat(values, first)
    rows = np.flatnonzero(values == least[whose])
    return rows[np.unique(whose[rows], return_index=True)[1]]


def _weighted(judged: Judged, shares: Floats) -> Judged:
    """The loss of all cases as what each adds to the gradient; not by the energy, which belongs to a minimum."""

    def shared(array: Floats) -> Floats:
        return array * shares.reshape(-1, *[1] * (array.ndim - 1))

    return Judged(
        judged.values,
        {name: shared(slope) for name, slope in judged.slopes.items()},
        None if judged.direct is None else shared(judged.direct),
        None,
    )


def _energy_blocks(kernel: Any, flat: Solution, factors: tuple[Floats, ...]) -> list[Floats]:
    """The sums of factor . dE/dw over every 64 rows, (R / 64, p), for each of the factors (R,)."""
    if not any(factor.any() for factor in factors):
        return [np.zeros((-(-len(flat.y) // BLOCK), flat.inputs.p)) for _ in factors]
    _, slopes = run(kernel.entry("weight_gradient"), flat.inputs, flat.y, count=len(flat.y))
    return [block_sums(np.where(f[:, None] == 0.0, 0.0, f[:, None] * slopes)) for f in factors]


def _refuse_singular(kernel: Any, lowest: Solution, rows: Rows, codes: Integers, who: str) -> None:
    """Raise for a minimum without a derivative, as one of the instance that it belongs to."""
    assert lowest.minima is not None
    for number in np.unique(rows.number[codes == SINGULAR]):
        here = (rows.number == number) & rows.counts
        own = np.full(len(lowest.y), LEFT_OUT, dtype=np.int64)
        own[rows.place[here]] = codes[here]
        refuse_singular_step(kernel, lowest.minima[number], own, who)
