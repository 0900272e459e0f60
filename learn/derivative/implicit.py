"""How a minimum moves with the weights: the damped derivative of Toso, Campbell and Russell (2019), equation 10.

    dy*/dw = -(H + shift I)^-1 d(grad_y E)/dw                           `implicit_jacobian`
    dl/dw  = -sum over instances of u . d(grad_y E)/dw,                 `implicit_gradient`
             u = (H + shift I)^-1 dl/dy

H is the Hessian of E in y at the minimum. shift = damping + max(0, -lowest eigenvalue of H) for damping > 0, so that
|dy*/dw| <= |d(grad_y E)/dw| / damping at every point, also where a minimisation ended on a saddle. damping = 0 is
never shifted: it is the derivative of Samuel and Tappen (2009), which does not exist where H is singular.

Where the minimum lies on bounds (`minimise(bounds=)`), variables that they hold do not move: their derivative is 0, and
H and d(grad_y E)/dw are those of the others. The limit on |dy*/dw| holds as ever.

The minimum-norm solution of a quadratic energy turns with the null space of H; its derivative is in minimum_norm.py.

The solves and why the bound survives rounding: damped.py.
"""

from __future__ import annotations

import math
import struct
import warnings
from array import array
from collections.abc import Callable, Iterator, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...compiler.calls.arrays import address_of
from ...compiler.calls.evaluate import BLOCK, Entry, Prepared
from ...compiler.calls.slices import run_slices
from ...compiler.kernel import Kernel, unpack_adjoint
from ...compiler.machine_code.native import Native
from ...energies.errors import InputError, InputTypeError, NameMissingError, NumericalError, UnsupportedError, nearest
from ...runtime.algebra.blocks import NONE, layout_of
from ...runtime.solution import Solution, Status
from ...runtime.sparse import is_coupled, is_sparse
from ...runtime.systems import shared_systems
from .blocks import block_sums, by_instances, in_order
from .damped import (
    DAMPING,
    FIRST_BLOCK,
    LEFT_OUT,
    NOT_FINITE,
    SHIFTED,
    SINGULAR,
    USED,
    adjoint_blocks,
    jacobian_slice,
    solve_slice,
    workspace_numbers,
)
from .idle import idle_members
from .minimum_norm import ill_posed, split, turn_jacobian

if TYPE_CHECKING:
    from ..output import Output, OutputSolution

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

STALLED, NOT_FINITE_STATUS = int(Status.STALLED), int(Status.NOT_FINITE)
POLICIES = ("zero", "nan", "use", "raise")

_PROBLEM = struct.Struct(f"={DAMPING}qd{FIRST_BLOCK - DAMPING}q")

_AT_ONCE = 256
"""Blocks whose sums are in memory at a time."""


class UnconvergedWarning(UserWarning):
    """Some instances did not converge and do not count in a gradient."""


def implicit_gradient(
    kernel: Kernel | Output,
    solution: Solution | OutputSolution,
    loss_gradient: Mapping[str, ArrayLike],
    damping: float = 0.1,
    unconverged: str = "zero",
) -> dict[str, Any]:
    """dl/dw through the minima of a batch, from dl/dy at each of them.

    Parameters
    ----------
    kernel : Kernel or Output
        What was minimised.
    solution : Solution or OutputSolution
        What `minimise` returned; it remembers weights and data.
    loss_gradient : dict of array_like
        dl/dy for each variable by name, with the shapes of `solution.variables`; of an output dl/dP, too. What is left
        out has derivative 0.
    damping : float
        lambda of eq. 10, >= 0, in the units of the Hessian.
    unconverged : {"zero", "nan", "use", "raise"}
        What instances contribute whose status is ITERATION_LIMIT, NOT_FINITE, UNBOUNDED or SADDLE (STALLED counts as
        converged): nothing, with a warning; NaN, which makes every sum NaN; what the formula gives, bounded as ever;
        or an error that names them. NOT_FINITE instances, and those whose Hessian or derivative is not finite, never
        count; that is warned of too.

    Returns
    -------
    dict like the weights
        Summed over the batch for shared weights, (B, ...) for weights with a batch axis; summed over the members of a
        family in both cases. The sum runs over blocks of 64 instances, added in order: the same bits for any number of
        threads.

    Raises
    ------
    InputError, InputTypeError, NameMissingError
        For arguments that do not fit; for a solution of another energy.
    NumericalError
        With damping = 0 where a Hessian is singular; with unconverged="raise".

    Notes
    -----
    |u| <= |dl/dy| / damping for every instance, whatever its Hessian.
    """
    if not isinstance(kernel, Kernel) and hasattr(kernel, "pull"):
        from .output_gradient import output_gradient  # here: most minima are wanted for themselves

        def through(one: Kernel, minima: Solution, slopes: dict[str, Any]) -> dict[str, Any]:
            return implicit_gradient(one, minima, slopes, damping, unconverged)

        return output_gradient(kernel, cast(Any, solution), loss_gradient, through, "implicit_gradient")
    strength = check_damping(damping, "implicit_gradient")
    check_policy(unconverged, "implicit_gradient")
    check_owner(kernel, solution, "implicit_gradient")
    kernel, solution = cast(Kernel, kernel), cast(Solution, solution)
    refuse_held(kernel, "implicit_gradient")
    slopes, codes = counted_slopes(kernel, solution, loss_gradient, unconverged, "implicit_gradient")
    if solution.inputs.p == 0:
        return {}
    gradient = damped_gradient(kernel, solution, slopes, strength, codes)
    if strength == 0.0:
        refuse_singular(kernel, solution, codes, "implicit_gradient")
    dropped = (codes == LEFT_OUT) | (codes == NOT_FINITE)
    if dropped.any():
        report_dropped(solution, codes, unconverged, "implicit_gradient")
        if unconverged == "nan":
            instances = dropped.reshape(-1, max(1, solution.inputs.members)).any(axis=1)
            gradient[instances if gradient.ndim == 2 else ...] = math.nan
    return unpacked(kernel, solution.inputs, gradient)


def implicit_jacobian(kernel: Kernel | Output, solution: Solution | OutputSolution, damping: float = 0.1) -> Floats:
    """dy*/dw of every instance, all variables and all weights flattened in declared order; of an output dP/dw.

    Parameters
    ----------
    kernel, solution, damping
        As for `implicit_gradient`.

    Returns
    -------
    (B, m, p), or (m, p) for an unbatched solution; of a family (B, F..., m, p) or (F..., m, p)
        |dy*/dw| <= |d(grad_y E)/dw| / damping at every point, in the spectral and the Frobenius norm and for each
        column; for minimum-norm solutions see docs/minimisers.md. NaN for an instance whose Hessian is not finite. To
        learn, use `implicit_gradient`, which never builds this.

    Raises
    ------
    InputError, InputTypeError, NumericalError
        As for `implicit_gradient`.
    """
    if not isinstance(kernel, Kernel) and hasattr(kernel, "pull"):
        from .output_gradient import output_jacobian  # here: as above

        return output_jacobian(kernel, cast(Any, solution), damping)
    strength = check_damping(damping, "implicit_jacobian")
    check_owner(kernel, solution, "implicit_jacobian")
    kernel, solution = cast(Kernel, kernel), cast(Solution, solution)
    refuse_held(kernel, "implicit_jacobian")
    inputs, packed = solution.inputs, solution.y
    count, n, p = len(packed), inputs.m, inputs.p
    out, codes = np.empty((count, n, p)), np.full(count, USED, dtype=np.int64)
    if p == 0:
        return _shaped(solution, out)
    if is_sparse(kernel, inputs):
        from .sparse import sparse_jacobian  # here: most energies never need it

        result: Floats = sparse_jacobian(kernel, solution, strength, codes)
        if strength == 0.0:
            refuse_singular(kernel, solution, codes, "implicit_jacobian")
        return _shaped(solution, result)
    try:
        kernel.refuse_too_large(inputs)
    except InputError as error:
        raise InputError(f"implicit_jacobian: {error}; implicit_gradient does without it") from None
    pair = _Pair(_hessian(kernel), kernel.entry("cross"), solution, strength, codes, out)
    pair.run(jacobian_slice(), count)
    some = ill_posed(solution, codes)
    if some is not None:
        turn_jacobian(solution, strength, some, out)
    if strength == 0.0:
        refuse_singular(kernel, solution, codes, "implicit_jacobian")
    return _shaped(solution, out)


def _shaped(solution: Solution, rows: Floats) -> Floats:
    each: Floats = solution.each(rows)
    return each


def damped_gradient(kernel: Kernel, solution: Solution, slopes: Floats, damping: float, codes: Codes) -> Floats:
    """The packed gradient, (p,) or (B, p) where a weight has a batch axis, without any check.

    Parameters
    ----------
    slopes : (B, m)
        dl/dy, packed.
    codes : (B,) int64
        USED or LEFT_OUT; overwritten with what became of each instance (damped.py).
    """
    inputs = solution.inputs
    rows = _by_products(kernel, solution, slopes, damping, codes, each=weights_batched(kernel, inputs))
    if rows is None:
        return _by_factors(kernel, solution, slopes, damping, codes, _summed)
    return over_members(rows, inputs) if rows.ndim == 2 else rows


def damped_blocks(
    kernel: Kernel,
    solution: Solution,
    slopes: Floats,
    damping: float,
    codes: Codes,
    largest: list[float],
    *,
    members: int,
) -> Floats:
    """What each block of 64 instances adds to it (blocks.py), (K, p); weights are shared by all instances.

    An instance has so many `members`, one row after the other. `largest` gets the largest norm of what one of them
    adds; what null spaces of minimum-norm solutions add (minimum_norm.py) is not in it for dense Hessians.
    """
    rows = _by_products(kernel, solution, slopes, damping, codes, each=True)
    if rows is not None:
        largest.append(math.sqrt(np.einsum("bp,bp->b", rows, rows).max(initial=0.0)))
        return block_sums(rows, members)

    def gathered(pair: _Pair, out: Floats, count: int) -> Floats:
        """The sum of each block of 64 rows."""
        once, kept = count <= BLOCK * len(out), []
        for some in _blocks(pair, out, count):
            kept.append(some if once else some.copy())
            if len(pair.sizes):
                largest.append(math.sqrt(pair.sizes[0] if len(some) == 1 else pair.sizes[: len(some)].max()))
        return kept[0] if once else np.concatenate(kept)

    sums = _by_factors(kernel, solution, slopes, damping, codes, gathered, sized=True)  # of 64 members each
    return by_instances(sums, members)


def _by_products(
    kernel: Kernel, solution: Solution, slopes: Floats, damping: float, codes: Codes, *, each: bool
) -> Floats | None:
    """Of a Hessian that is large, (p,), or (B, p) for `each` instance; None: it is not."""
    if is_sparse(kernel, solution.inputs):
        from .sparse import sparse_gradient  # here: most energies never need it

        return sparse_gradient(kernel, solution, slopes, damping, codes, each=each)
    if is_coupled(kernel, solution.inputs) and solution.held is None:
        from .products import products_gradient  # here: most energies never need it

        return products_gradient(kernel, solution, slopes, damping, codes, each=each)
    return None


def _by_factors(
    kernel: Kernel,
    solution: Solution,
    slopes: Floats,
    damping: float,
    codes: Codes,
    collected: Callable[[_Pair, Floats, int], Floats],
    *,
    sized: bool = False,
) -> Floats:
    """Of a Hessian that is not; `collected` sums what the pair of drivers writes, and, `sized`, the sizes of it."""
    inputs, packed = solution.inputs, solution.y
    count, p = len(packed), inputs.p
    hessian, adjoint = _hessian(kernel), kernel.entry("cross_adjoint")
    rows = np.empty((count if weights_batched(kernel, inputs) else min(-(-count // BLOCK), _AT_ONCE), p))
    directions = -slopes
    sizes = np.zeros(len(rows)) if sized else None
    idle = idle_members(slopes, inputs)
    if idle is not None:
        idle &= codes == USED
        codes[idle] = LEFT_OUT
    pair = _Pair(hessian, adjoint, solution, damping, codes, rows, directions, sizes)
    pair.run(solve_slice(), count)
    if idle is not None:
        gradient = _with_null_spaces(kernel, solution, pair, damping, codes, collected, directions, rows)
        codes[idle] = USED
        return gradient
    return _with_null_spaces(kernel, solution, pair, damping, codes, collected, directions, rows)


def _with_null_spaces(
    kernel: Kernel,
    solution: Solution,
    pair: _Pair,
    damping: float,
    codes: Codes,
    collected: Callable[[_Pair, Floats, int], Floats],
    directions: Floats,
    rows: Floats,
) -> Floats:
    """What `collected` sums of solved directions, and of what null spaces add (minimum_norm.py)."""
    hessian, adjoint, count = _hessian(kernel), kernel.entry("cross_adjoint"), len(solution.y)
    some = ill_posed(solution, codes)
    if some is None:
        return collected(pair, rows, count)
    moved, parts = split(solution, damping, some, directions)
    gradient, more = collected(pair, rows, count), np.empty_like(rows)
    some[codes == NOT_FINITE] = LEFT_OUT
    along_null_spaces = collected(_Pair(hessian, adjoint, moved, damping, some, more, parts), more, count)
    if (some == NOT_FINITE).any():  # what has been summed of those instances is taken back
        codes[some == NOT_FINITE] = NOT_FINITE
        gradient = collected(pair, rows, count)
    return gradient + along_null_spaces


def damped_directions(
    kernel: Kernel, solution: Solution, slopes: Floats, damping: float, codes: Codes
) -> list[tuple[Floats, Floats]]:
    """Points and directions (B, m), of which sum(direction . d(grad_y E)) at the point is dl, by weights or by data.

    The minima and -u of eq. 10; where there are minimum-norm solutions also what minimum_norm.py adds. Directions are 0
    for instances that do not count. Parameters as for `damped_gradient`.
    """
    inputs, packed = solution.inputs, solution.y
    moved: tuple[Floats, Floats] | None = None
    if is_sparse(kernel, inputs):
        from .sparse import sparse_directions  # here: most energies never need it

        directions, moved = sparse_directions(kernel, solution, slopes, damping, codes)
    elif is_coupled(kernel, inputs) and solution.held is None:
        from .products import products_directions  # here: most energies never need it

        directions = products_directions(kernel, solution, slopes, damping, codes)
    else:
        hessian, directions = _hessian(kernel), -slopes
        pair = _Pair(hessian, hessian, solution, damping, codes, directions, directions)
        pair.run(solve_slice(), len(packed))
        some = ill_posed(solution, codes)
        if some is not None:
            other, parts = split(solution, damping, some, directions)
            moved = other.y, parts
    found = [(packed, directions)] if moved is None else [(packed, directions), moved]
    for _, each in found:
        each[(codes != USED) & (codes != SHIFTED)] = 0.0
    return found


def _blocks(pair: _Pair, rows: Floats, count: int) -> Iterator[Floats]:
    """The sums of direction . d(grad)/dw over blocks of 64 rows, in `rows`: so many blocks at a time."""
    blocks = -(-count // BLOCK)
    for start in range(0, blocks, _AT_ONCE):
        here = min(_AT_ONCE, blocks - start)
        pair.run(adjoint_blocks(), here, start)
        yield rows[:here]


def _summed(pair: _Pair, rows: Floats, count: int) -> Floats:
    """The sum of direction . d(grad)/dw over the batch, or (B, p) where a weight has a batch axis."""
    if pair.each:
        pair.run(adjoint_blocks(), -(-count // BLOCK))
        return over_members(rows, pair.inputs)
    return in_order((row for some in _blocks(pair, rows, count) for row in some), rows.shape[1:])


def over_members(rows: Floats, inputs: Any) -> Floats:
    """The sums over the members of a family, in order: (B, p) from (B*F, p)."""
    if not inputs.family:
        return rows
    each = rows.reshape(-1, max(1, inputs.members), rows.shape[1])
    total = np.zeros((len(each), rows.shape[1]))
    for member in range(each.shape[1]):
        total += each[:, member]
    return total


def weights_batched(kernel: Kernel, inputs: Any) -> bool:
    """Whether a weight was given with a batch axis, so that its gradient has one."""
    return any(inputs.batched[: len(kernel.declaration.weights)])


def unpacked(kernel: Kernel, inputs: Any, gradient: Floats) -> dict[str, Any]:
    if gradient.ndim == 1:
        return kernel.weights.unpack(gradient, inputs.sizes)
    batched = dict(zip(kernel.weights.names, inputs.batched, strict=False))
    return unpack_adjoint(kernel.weights, gradient, batched, inputs)


def _hessian(kernel: Kernel) -> Entry:
    """The entry that writes Hessians, last of all that it writes: the one that a minimisation has compiled."""
    return kernel.entry("hessian" if kernel.quadratic else "value_gradient_hessian")


class _Pair:
    """Two entries of a kernel at the minima of a solution: the problem of the drivers of damped.py."""

    def __init__(
        self,
        first: Entry,
        second: Entry,
        solution: Solution,
        damping: float,
        codes: Codes,
        out: Floats,
        directions: Floats | None = None,
        sizes: Floats | None = None,
    ) -> None:
        inputs, packed = solution.inputs, solution.y
        count = len(packed)
        self.inputs, self.each = inputs, weights_batched(solution.kernel, inputs)
        self._prepared = tuple([Prepared(entry, inputs, alone=count == 1) for entry in (first, second)])
        scratch = max(first.needs(inputs)[1], second.needs(inputs)[1])
        self._workspace = sum(p.own for p in self._prepared) + scratch + workspace_numbers(inputs.m, inputs.p)
        self._key = (second.evaluate.address, inputs.extents.tobytes())
        layout = layout_of(solution.kernel, inputs) if solution.held is None else NONE
        self.sizes = np.empty(0) if sizes is None else sizes
        systems = None
        if solution.kernel.quadratic and inputs.m > 2:
            systems = shared_systems(solution.kernel, first, inputs, count)
        self._keep: tuple[Any, ...] = packed, solution, codes, out, directions, layout, systems
        self._fields = (
            *self._prepared[0].fields,
            *self._prepared[1].fields,
            inputs.table_address,
            inputs.extents_address,
            inputs.m,
            inputs.p,
            scratch,
            damping,
            address_of(packed),
            inputs.m if count > 1 else 0,
            address_of(solution.reals),
            address_of(codes),
            address_of(out),
            0 if directions is None else address_of(directions),
            count,
            int(self.each),
            0 if solution.held is None else address_of(solution.held),
            address_of(layout),
            0 if sizes is None else address_of(sizes),
            *self._kept_factors(solution, damping),
            max(0, first.needs(inputs)[2] - inputs.m**2),
            *((0, 0) if systems is None else systems.fields),
        )

    def _kept_factors(self, solution: Solution, damping: float) -> tuple[int, int, int]:
        """Where the minimisation has kept factors of the matrices at hand: how many, and how large a row is."""
        factors = solution.problem.factors
        if factors is None or damping != 0.0 or not solution.kernel.quadratic or solution.y is not solution.problem.y:
            return 0, 0, 0
        self._keep = *self._keep, factors
        return address_of(factors), *factors.shape

    def run(self, driver: Native, count: int, first_block: int = 0) -> None:
        problem = array("q", _PROBLEM.pack(*self._fields, first_block))
        run_slices(driver, problem.buffer_info()[0], count, key=(driver.address, *self._key), workspace=self._workspace)


# ---------------------------------------------------------------------------------------------- who counts


def unusable(solution: Solution) -> NDArray[np.bool_]:
    """Which instances have one of the statuses that `unconverged=` speaks of, (B,)."""
    marked: NDArray[np.bool_] = solution.integers[:, 2] > STALLED
    return marked


def not_finite(solution: Solution) -> NDArray[np.bool_]:
    """Which instances have nothing to differentiate, (B,)."""
    marked: NDArray[np.bool_] = solution.integers[:, 2] == NOT_FINITE_STATUS
    return marked


def report_dropped(solution: Solution, codes: Codes, unconverged: str, who: str) -> None:
    """Warn that instances do not count, or raise; called by what the user calls."""
    parts = []
    left_out, broken = codes == LEFT_OUT, codes == NOT_FINITE
    if left_out.any():
        parts.append(unconverged_summary(solution, left_out))
    if broken.any():
        parts.append(
            f"{int(broken.sum())} of {len(codes)} {solution.rows_text} have a Hessian or a derivative that is not "
            f"finite (first: {_listed(solution, broken)})"
        )
    summary = "; ".join(parts)
    if unconverged == "raise":
        raise NumericalError(f"{who}: {summary}; allow more iterations, or use unconverged='zero' / 'use'")
    if unconverged != "nan":
        warnings.warn(
            f"{who}: {summary}: their gradient is set to 0; unconverged='nan' / 'use' / 'raise' decides otherwise",
            UnconvergedWarning,
            stacklevel=3,
        )


def unconverged_summary(solution: Solution, marked: NDArray[np.bool_]) -> str:
    """`3 of 400 instances did not converge (iteration limit 2, saddle 1; first: 17, 41, 300)`."""
    if not solution.lead:
        return f"the minimisation did not converge ({_words(solution.status)})"
    counts = np.bincount(solution.integers[marked, 2], minlength=len(Status))
    kinds = [f"{_words(status)} {counts[status]}" for status in Status if counts[status]]
    return (
        f"{int(marked.sum())} of {len(marked)} {solution.rows_text} did not converge ({', '.join(kinds)}; "
        f"first: {_listed(solution, marked)})"
    )


def _words(status: Status) -> str:
    return status.name.lower().replace("_", " ")


# ---------------------------------------------------------------------------------------------- checks


def check_damping(damping: Any, who: str) -> float:
    """The damping as a float >= 0."""
    if not isinstance(damping, Real) or isinstance(damping, bool):
        raise InputTypeError(f"{who}: damping must be a number >= 0 (got {damping!r} of type {type(damping).__name__})")
    number = float(damping)
    if not 0.0 <= number < math.inf:
        raise InputError(f"{who}: damping must be a finite number >= 0 (got {number:g}); 0.1 is the paper's")
    return number


def check_policy(unconverged: Any, who: str) -> None:
    if unconverged not in POLICIES:
        hint = nearest(unconverged, POLICIES) if isinstance(unconverged, str) else ""
        raise InputError(f"{who}: unknown unconverged={unconverged!r}{hint}; one of {', '.join(map(repr, POLICIES))}")


def check_owner(kernel: Any, solution: Any, who: str) -> None:
    if not isinstance(kernel, Kernel):
        raise InputTypeError(f"{who}: kernel must be what wb.compile returned (got {type(kernel).__name__})")
    if not isinstance(solution, Solution):
        raise InputTypeError(f"{who}: solution must be what minimise returned (got {type(solution).__name__})")
    if solution.kernel is not kernel and solution.kernel.energy.formula_key != kernel.energy.formula_key:
        raise InputError(
            f"{who}: the solution belongs to energy {solution.kernel.name!r} "
            f"({solution.kernel.energy.formula_key[:8]}), the kernel is {kernel.name!r} "
            f"({kernel.energy.formula_key[:8]}); pass the kernel that was minimised"
        )


def refuse_held(kernel: Kernel, who: str) -> None:
    """Raise for an energy with parts that are held: its gradient is that of no function."""
    if kernel.holds:
        raise UnsupportedError(
            f"{who}: energy {kernel.name!r} has held parts (wb.held); where its steps end is no minimum of it: use "
            "wb.unrolled_gradient (a learner: method='irls'), or declare the penalty itself, such as wb.pseudo_huber"
        )


def packed_slopes(kernel: Kernel, solution: Solution, loss_gradient: Any, who: str) -> Floats:
    """dl/dy as (B, m), after its names and shapes were checked."""
    names = kernel.variables.names
    if not isinstance(loss_gradient, Mapping):
        raise InputTypeError(
            f"{who}: loss_gradient must be a dict of dl/dy by variable "
            f"(got {type(loss_gradient).__name__}); variables: {', '.join(names)}"
        )
    for name in loss_gradient:
        if name not in names:
            raise NameMissingError(
                f"{who}: loss_gradient has an unknown variable {name!r}"
                f"{nearest(str(name), names)}; variables: {', '.join(names)}"
            )
    if not loss_gradient:
        raise NameMissingError(f"{who}: loss_gradient is empty; give dl/dy for at least one of {', '.join(names)}")
    rows, parts = len(solution.y), []
    for name in names:
        wanted = np.shape(solution.variables[name])
        size = math.prod(wanted[len(solution.lead) :])
        if name not in loss_gradient:
            parts.append(np.zeros((rows, size)))
            continue
        try:
            slope = np.asarray(loss_gradient[name])
            if slope.dtype.kind == "c":
                raise TypeError("it is complex")
            slope = np.asarray(slope, dtype=np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputTypeError(f"{who}: loss_gradient[{name!r}] is not an array of numbers ({error})") from None
        if slope.shape != wanted:
            raise InputError(
                f"{who}: loss_gradient[{name!r}] must have shape {wanted} as "
                f"solution.variables[{name!r}]; got {slope.shape}"
            )
        parts.append(slope.reshape(rows, size))
    return np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1))


def counted_slopes(
    kernel: Kernel, solution: Solution, loss_gradient: Any, unconverged: str, who: str
) -> tuple[Floats, Codes]:
    """dl/dy as (B, m), checked, and which instances count, (B,): USED or LEFT_OUT."""
    slopes = packed_slopes(kernel, solution, loss_gradient, who)
    codes = np.full(len(slopes), USED, dtype=np.int64)
    codes[not_finite(solution) if unconverged == "use" else unusable(solution)] = LEFT_OUT
    if np.isfinite(slopes).all():
        return slopes, codes
    bad = ~np.isfinite(slopes).all(axis=1) & (codes != LEFT_OUT)
    if bad.any():
        where = f" at {solution.rows_text[:-1]} {solution.listed([_first(bad)])}" if solution.lead else ""
        raise InputError(
            f"{who}: loss_gradient of energy {kernel.name!r} is NaN or infinite, first{where}: check the loss"
        )
    return slopes, codes


def refuse_singular(kernel: Kernel, solution: Solution, codes: Codes, who: str) -> None:
    """Raise if an undamped derivative does not exist, naming instances and their smallest eigenvalue."""
    singular = codes == SINGULAR
    if not singular.any():
        return
    instance = _first(singular)
    detail = ""
    if not is_sparse(kernel, solution.inputs):
        hessian = np.asarray(kernel.dense_hessian(solution.variables, solution.w, solution.x))
        hessian = hessian.reshape(-1, *hessian.shape[-2:])[instance]
        if solution.held is not None:
            free = np.flatnonzero(solution.held[instance] == 0)
            hessian = hessian[np.ix_(free, free)]
        eigenvalues = np.linalg.eigvalsh(hessian)
        detail = f" (smallest eigenvalue {eigenvalues[np.argmin(abs(eigenvalues))]:.3g})"
    if not solution.lead:
        what = f"the Hessian is singular{detail}"
    else:
        what = f"{solution.rows_text[:-1]} {solution.listed([instance])} has a singular Hessian{detail}"
        if singular.sum() > 1:
            what += f"; {int(singular.sum())} of {len(codes)} {solution.rows_text}: {_listed(solution, singular)}"
    raise NumericalError(
        f"{who}: energy {kernel.name!r}, damping 0: {what}; its minimum has no derivative, use damping=0.1"
    )


def _first(marked: NDArray[np.bool_]) -> int:
    return int(np.flatnonzero(marked)[0])


def _listed(solution: Solution, marked: NDArray[np.bool_]) -> str:
    rows = np.flatnonzero(marked)
    return solution.listed(rows[:10], len(rows) > 10)
