"""Variables that are solved out: what the user gives as `eliminate=`, checked, and starts without them.

The method is in variable_projection.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ..compiler.calls.arrays import evaluate
from ..energies.errors import InputError, InputTypeError, NameMissingError, UnsupportedError, nearest


def eliminated_names(kernel: Any, eliminate: Any, method: str, bounded: bool) -> tuple[str, ...]:
    """The variables that `eliminate=` names, in declared order, after a check that they can be eliminated.

    Raises
    ------
    InputTypeError, NameMissingError, InputError
        If it is no list of variables; if nothing is left; if the method, or bounds, do not go with it.
    UnsupportedError
        If the energy is not quadratic in them; it names the term. For families.
    """
    where, names = f"minimise: energy {kernel.name!r}", kernel.variables.names
    if not isinstance(eliminate, Sequence) or isinstance(eliminate, str):
        raise InputTypeError(
            f"{where}: eliminate must be a list of variables ({', '.join(names)}), such as eliminate=[{names[0]}]; "
            f"got {type(eliminate).__name__}"
        )
    if not eliminate:
        return ()
    chosen = tuple([one if isinstance(one, str) else str(getattr(one, "name", one)) for one in eliminate])
    checked: tuple[str, ...] = remembered(
        kernel, ("names", chosen, method, bounded), lambda: _checked(kernel, chosen, method, bounded, where)
    )
    return checked


def _checked(kernel: Any, chosen: tuple[str, ...], method: str, bounded: bool, where: str) -> tuple[str, ...]:
    names, listed = kernel.variables.names, ", ".join(chosen)
    for name in chosen:
        if name not in names:
            raise NameMissingError(
                f"{where}: unknown variable {name!r} in eliminate{nearest(name, names)}; variables: {', '.join(names)}"
            )
    if len(set(chosen)) < len(chosen):
        raise InputError(f"{where}: eliminate=[{listed}] names a variable twice")
    if len(chosen) == len(names):
        raise InputError(
            f"{where}: eliminate=[{listed}] leaves no variable to minimise over; leave one out, or leave out "
            "eliminate= (an energy that is quadratic in all variables is solved in one step)"
        )
    if method != "trust-region":
        raise InputError(f"{where}: eliminate=[{listed}] does not go with method={method!r}; use method='trust-region'")
    if bounded:
        raise InputError(
            f"{where}: eliminate=[{listed}] does not go with bounds=: what is solved in closed form knows no bounds; "
            "leave one of them out"
        )
    if kernel.energy.over:
        raise UnsupportedError(
            f"{where}: eliminate=[{listed}] does not go with a family (over=) yet; leave it out, or write the members "
            "as a batch"
        )
    from ..compiler.passes.elimination import term_not_quadratic  # here: few energies need it

    term = term_not_quadratic(kernel.energy, chosen)
    if term is not None:
        raise UnsupportedError(
            f"{where}: it is not quadratic in {listed} for all values of the other variables: the term {term} goes "
            "beyond degree 2 (as written: terms that cancel count); eliminate= needs that, leave "
            f"{'it' if len(chosen) == 1 else 'one of them'} out"
        )
    return tuple(name for name in names if name in chosen)


def with_zeros(kernel: Any, given: Any, eliminated: Sequence[str], inputs: Any, *, counted: bool) -> Any:
    """A start, or candidates, with 0 for the eliminated variables that it leaves out."""
    if not isinstance(given, Mapping):
        return given
    left_out = [s for s in kernel.declaration.variables if s.name in eliminated and s.name not in given]
    if not left_out:
        return given
    lead: tuple[int, ...] = ()
    if counted:
        for symbol in kernel.declaration.variables:
            shape = np.shape(given.get(symbol.name, ()))
            if symbol.name in given and len(shape) > len(symbol.axes):
                lead = shape[len(shape) - len(symbol.axes) - 1 :][:1]
    return {**given, **{s.name: np.zeros((*lead, *(evaluate(n, inputs.sizes) for n in s.axes))) for s in left_out}}


# ---------------------------------------------------------------------------------------------- remembered


_known: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()


def remembered(kernel: Any, key: Any, make: Callable[[], Any]) -> Any:
    """What `make` gives, kept for the last keys of a kernel."""
    known = _known.setdefault(kernel, {})
    if key not in known:
        if len(known) >= 100:
            known.clear()
        known[key] = make()
    return known[key]
