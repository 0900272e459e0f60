"""What a check of a random energy found, made as small as it gets, and written as a file that runs.

`examine` judges an energy at points; `shrunk` takes parts of the expression and of the point away as long as the
fault stays; `write` makes a file that declares what is left, compares, and shows the mismatch.
"""

from __future__ import annotations

import pprint
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import sympy as sp
import wiberg as wb
from sympy.printing.str import StrPrinter
from wiberg.compiler import testing
from wiberg.compiler.testing import DerivativeReport, Point, compare, compare_along

FAULTY = ("wrong", "crashed")
SHRINK_SECONDS = 60.0
UNSUITABLE = (wb.WibergError, ArithmeticError, ValueError, IndexError)  # of energies and points that cannot be used


@dataclass(frozen=True)
class Finding:
    """The verdict ("right", "skipped", "wrong" or "crashed"), on which derivative, and the numbers."""

    verdict: str
    derivative: str = ""
    text: str = ""


def examine(kernel: wb.Kernel, points: Sequence[Point]) -> Finding:
    """All derivatives of a kernel at points of equal sizes against the formula itself."""
    try:
        report = judged(compare_along, kernel, points)
        if not report.ok:
            report = judged(compare, kernel, points)  # names the entry
    except wb.NumericalError:
        return Finding("skipped")
    except Exception as error:
        return Finding("crashed", type(error).__name__, f"{type(error).__name__}: {error}")
    if report.ok:
        return Finding("right")
    if not np.isfinite(report.worst.expected) or abs(report.worst.expected) > testing.LARGEST:
        return Finding("skipped")  # a kink or a pole: differences across it say nothing
    return Finding("wrong", report.worst.derivative, str(report.worst))


def judged(comparison: Callable[..., None], kernel: wb.Kernel, points: Sequence[Point]) -> DerivativeReport:
    report = DerivativeReport(kernel.energy.name, 1, testing.TOLERANCE)
    comparison(kernel, list(points), report, 0, np.random.default_rng(0))
    return report


# ---------------------------------------------------------------------------------------------- smaller


@dataclass(frozen=True)
class Case:
    """An energy by its parts, and a point: what is shrunk."""

    expression: Any
    where: tuple[tuple[Any, Any], ...]
    roles: tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]
    point: Point

    def energy(self) -> wb.Energy:
        """With the symbols that are still used."""
        needed, where = set(self.expression.free_symbols), {}
        for key, formula in reversed(self.where):
            label = key.base.label if isinstance(key, sp.Indexed) else key
            if label in needed:
                where[key] = formula
                needed |= formula.free_symbols
        kept = [[s for s in role if (s.label if isinstance(s, sp.IndexedBase) else s) in needed] for role in self.roles]
        shapes = {str(e) for role in kept for s in role if isinstance(s, sp.IndexedBase) for e in s.shape}
        extents = {str(s) for s in needed if s.is_Symbol and s.is_integer and not shapes >= {str(s)}}
        for s in self.roles[2]:  # data that only give an extent stay
            if s not in kept[2] and isinstance(s, sp.IndexedBase) and extents & {str(e) for e in s.shape}:
                kept[2].append(s)
        return wb.Energy(
            self.expression, variables=kept[0], weights=kept[1], data=kept[2], where=dict(reversed(where.items())),
            name="reproducer",
        )  # fmt: skip


Fails = Callable[[Case], bool]


def shrunk(case: Case, fails: Fails, seconds: float = SHRINK_SECONDS) -> Case:
    """The smallest case that was found in that time and still fails."""
    until, changed = monotonic() + seconds, True
    while changed and monotonic() < until:
        changed = False
        for smaller in candidates(case):
            if monotonic() > until:
                break
            if fails(smaller):
                case, changed = smaller, True
                break
    return case


def candidates(case: Case) -> Iterator[Case]:
    """Cases with one part less, those with the largest part gone first; then the same with rounder numbers."""
    for expression in simpler(case.expression):
        yield Case(expression, case.where, case.roles, case.point)
    for k, (key, formula) in enumerate(case.where):
        for smaller in simpler(formula):
            yield Case(case.expression, (*case.where[:k], (key, smaller), *case.where[k + 1 :]), case.roles, case.point)
    for name, array in case.point.items():
        if np.asarray(array).dtype.kind == "f":
            for digits in (0, 1, 2):
                rounded = np.round(array, digits)
                if not np.array_equal(rounded, array) and np.all((rounded > 0) == (np.asarray(array) > 0)):
                    yield Case(case.expression, case.where, case.roles, {**case.point, name: rounded})


def simpler(expression: Any) -> Iterator[Any]:
    """The expression with one number in it replaced by one of its arguments, by 1 or by 0."""
    for node in sp.preorder_traversal(expression):
        if not isinstance(node, sp.Expr) or node.is_Atom or isinstance(node, sp.Indexed) or node.is_Integer:
            continue
        parts = [node.function] if isinstance(node, sp.Sum) else list(node.args)
        numbers = [p for p in parts if isinstance(p, sp.Expr) and not isinstance(p, sp.Idx)]
        if isinstance(node, sp.Piecewise):
            numbers = [branch for branch, _ in node.args]
        for replacement in (sp.Integer(0), sp.Integer(1), *numbers):
            smaller = expression.xreplace({node: replacement})
            if smaller != expression:
                yield smaller


def fails_like(finding: Finding, compile_kernel: Callable[[wb.Energy], wb.Kernel]) -> Fails:
    """Whether a case has the same fault: the same derivative wrong, or the same kind of error."""

    def fails(case: Case) -> bool:
        try:
            kernel = compile_kernel(case.energy())
        except UNSUITABLE:
            return False
        except Exception as error:
            return finding.verdict == "crashed" and type(error).__name__ == finding.derivative
        names = kernel.energy.shapes
        found = examine(kernel, [{n: a for n, a in case.point.items() if n in names}])
        return (found.verdict, found.derivative) == (finding.verdict, finding.derivative)

    return fails


# ---------------------------------------------------------------------------------------------- a file


TEMPLATE = '''"""{title}

{text}
"""

import sys

import numpy as np
import sympy as sp
import wiberg as wb
{imports}
from wiberg.compiler.testing import DerivativeReport, compare

{declaration}
point = {point}
kernel = wb.compile(energy, backend="reference")
{compiled}print(energy)
report = DerivativeReport(energy.name, 1, 1e-8)
compare(kernel, [{{name: np.array(value) for name, value in point.items()}}], report, 0, np.random.default_rng(0))
print(report)
sys.exit(0 if report.ok else 1)
'''


IMPORTS = "from sympy import *\nfrom sympy.functions.elementary.piecewise import ExprCondPair"
SEED = """import random

from wiberg.compiler.testing import random_energy

energy = random_energy(random.Random({seed}))"""
COMPILED = """from wiberg.compiler.machine_code.entry import compiled_entry

kernel._entries[{kind!r}] = compiled_entry(energy, {kind!r})  # this kind in machine code, the others interpreted
"""


def write(
    path: Path, energy: wb.Energy, points: Sequence[Point], finding: Finding, seed: int, kind: str | None
) -> Path:
    """Shrink, and write a file that runs; where the small form cannot be written, the seed stands for it."""
    from fuzz import kernel_of

    fails = fails_like(finding, lambda e: kernel_of(e, kind))
    roles = (energy.variables, energy.weights, energy.data)
    whole = [Case(energy.expression, tuple(energy.where.items()), roles, p) for p in points or [{}]]
    case = next((shrunk(c, fails) for c in whole if fails(c)), whole[0])
    declaration = declared(case.energy()) or SEED.format(seed=seed)
    names = energy.shapes if declaration == SEED.format(seed=seed) else case.energy().shapes
    point = {n: a for n, a in case.point.items() if n in names}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = TEMPLATE.format(
        title=f"Found by `make fuzz`: seed {seed}, {finding.derivative} {finding.verdict}.",
        text=finding.text.replace("\\", "\\\\").replace('"""', "'''"),
        imports=IMPORTS,
        declaration=declaration,
        point=pprint.pformat({n: np.asarray(a).tolist() for n, a in point.items()}, width=110, sort_dicts=False),
        compiled="" if kind is None else COMPILED.format(kind=kind),
    )
    path.write_text(text)
    return path


def declared(energy: wb.Energy) -> str | None:
    """Source that declares an equal energy, symbols by name if that gives it, else term by term; None if neither."""
    for text in (readable(energy), exact(energy)):
        namespace: dict[str, Any] = {}
        try:
            exec(f"{IMPORTS}\nimport sympy as sp\nimport wiberg as wb\n" + text, namespace)
            if namespace["energy"] == energy:
                return text
        except Exception:  # a form that does not come back: the next one, or the seed
            continue
    return None


def readable(energy: wb.Energy) -> str:
    """The declaration as a person would write it."""
    formulas = [energy.expression, *energy.where.keys(), *energy.where.values()]
    symbols = {s for f in formulas for s in f.atoms(sp.Symbol)} | set(energy.extents)
    symbols |= {s for s in energy.data if isinstance(s, sp.Symbol)}
    bases = {s.label for role in (energy.variables, energy.weights, energy.data) for s in role
             if isinstance(s, sp.IndexedBase)}  # fmt: skip
    bases |= {key.base.label for key in energy.where if isinstance(key, sp.Indexed)}
    indices = sorted({i for f in formulas for i in f.atoms(sp.Idx)}, key=str)
    labels = {i.label for i in indices}
    lines = [f"{s.name} = {_symbol(s)}" for s in sorted(symbols - bases - labels, key=str) if s.name.isidentifier()]
    arrays = [
        s for role in (energy.variables, energy.weights, energy.data) for s in role if isinstance(s, sp.IndexedBase)
    ]
    arrays += [key.base for key in energy.where if isinstance(key, sp.Indexed)]
    for base in arrays:
        integer = ", integer=True" if base.label.is_integer else ""
        lines.append(f"{base.name} = sp.IndexedBase({base.name!r}, shape={base.shape}{integer})")
    for i in indices:
        whole = i.lower == 0
        lines.append(f"{i.name} = sp.Idx({i.name!r}, {i.upper + 1 if whole else (i.lower, i.upper)})")
    where = ", ".join(f"{key}: {_printed(value)}" for key, value in energy.where.items())
    lines += [
        f"expression = {_printed(energy.expression)}",
        f"energy = wb.Energy(expression, variables={_names(energy.variables)}, weights={_names(energy.weights)}, "
        f"data={_names(energy.data)}, where={{{where}}}, name={energy.name!r})",
    ]
    return "\n".join(lines)


class _Printer(StrPrinter):  # type: ignore[misc]
    def _print_Float(self, expr: Any) -> str:
        return repr(float(expr))


def _printed(expression: Any) -> str:
    return str(_Printer().doprint(expression))


def _names(symbols: Sequence[Any]) -> str:
    return "[" + ", ".join(str(s.name) for s in symbols) + "]"


def _symbol(symbol: Any) -> str:
    assumptions = {k: v for k, v in symbol._assumptions_orig.items() if k != "commutative"}
    options = "".join(f", {key}={value}" for key, value in sorted(assumptions.items()))
    return f"sp.Symbol({symbol.name!r}{options})"


def exact(energy: wb.Energy) -> str:
    """The declaration in SymPy's own representation."""
    roles = {
        r: "[" + ", ".join(map(sp.srepr, s)) + "]"
        for r, s in zip(("variables", "weights", "data"), (energy.variables, energy.weights, energy.data), strict=True)
    }
    where = ", ".join(f"{sp.srepr(k)}: {sp.srepr(v)}" for k, v in energy.where.items())
    arguments = ", ".join(f"{r}={text}" for r, text in roles.items())
    return f"energy = wb.Energy({sp.srepr(energy.expression)}, {arguments}, where={{{where}}}, name={energy.name!r})"
