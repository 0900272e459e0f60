"""What an energy holds, shows and is equal to."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from wiberg.energies.energy import Energy

n, m, K = (sp.Symbol(name, integer=True, positive=True) for name in ("n", "m", "K"))
i, j, k = sp.Idx("i", n), sp.Idx("j", n), sp.Idx("k", m)
t, s = sp.symbols("t s", real=True)
sigma = sp.Symbol("sigma", positive=True)
x, y = sp.IndexedBase("x", shape=(n,)), sp.IndexedBase("y", shape=(n,))
e = sp.IndexedBase("e", shape=(m, 2), integer=True)
u, v, r = sp.IndexedBase("u"), sp.IndexedBase("v"), sp.Symbol("r")
ransac = -sp.Sum(sp.exp(-(((x[i] - t) / sigma) ** 2)), i)
hostile = ['__import__("os").system("x")', "lambda", "E+1", "a'b\"c", "line\nbreak", "🐛 {x}", "", "\\frac{", "$&%#_^~"]


def make_ransac(**changes: Any) -> Energy:
    arguments: dict[str, Any] = {"variables": [t], "weights": [sigma], "data": [x], "name": "ransac"}
    return Energy(changes.pop("expression", ransac), **{**arguments, **changes})


def make_pose() -> Energy:
    """The pose energy of 4 cameras, 17 joints and 26 bases."""
    C, J, c, joint = sp.Integer(4), sp.Integer(17), sp.Idx("c", 4), sp.Idx("j", 17)
    basis, axis, view = sp.Idx("k", K), sp.Idx("d", 3), sp.Idx("e", 2)
    a, mean = sp.IndexedBase("a", shape=(K,)), sp.IndexedBase("m", shape=(K,))
    B, P = sp.IndexedBase("B", shape=(K, J, 3)), sp.IndexedBase("P", shape=(C, 2, 3))
    omega, spread = sp.IndexedBase("omega", shape=(C, J)), sp.IndexedBase("sigma", shape=(K,), positive=True)
    X, delta = sp.IndexedBase("X", shape=(C, J, 2)), sp.Symbol("delta", positive=True)
    skeleton = sp.Sum(a[basis] * B[basis, joint, axis], basis)
    residual = X[c, joint, view] - sp.Sum(P[c, view, axis] * skeleton, axis)
    penalty = delta**2 * (sp.sqrt(1 + sp.Sum(residual**2, view) / delta**2) - 1)
    prior = sp.Sum((spread[basis] * (a[basis] - mean[basis])) ** 2, basis) / 2
    return Energy(
        sp.Sum(omega[c, joint] ** 2 * penalty, c, joint) + prior,
        variables=[a],
        weights=[B, omega, spread, P, delta, mean],
        data=[X],
        name="pose",
    )


class TestContents:
    def test_roles_and_shapes(self) -> None:
        matrix = sp.IndexedBase("A", shape=(m, n - 1, 2))
        energy = Energy(ransac + matrix[0, 0, 0], variables=[t], weights=[sigma, matrix], data=[x, e])
        assert energy.variables == (t,)
        assert energy.weights == (sigma, matrix)
        assert energy.data == (x, e)
        assert dict(energy.shapes) == {"t": (), "sigma": (), "A": (m, n - 1, 2), "x": (n,), "e": (m, 2)}
        assert energy.extents == (m, n)
        assert energy.positive == {"sigma"}
        assert energy.integer == {"e"}
        assert energy.name == "energy"
        assert dict(energy.where) == {} == dict(energy.candidates)
        assert energy.candidate_index is None

    def test_positive_arrays_are_recorded(self) -> None:
        spread = sp.IndexedBase("s", shape=(n,), positive=True)
        energy = Energy(sp.Sum((spread[i] * (x[i] - t)) ** 2, i), variables=[t], weights=[spread], data=[x])
        assert energy.positive == {"s"}

    def test_the_pose_energy(self) -> None:
        energy = make_pose()
        assert energy.extents == (K,)
        assert energy.positive == {"sigma", "delta"}

    def test_limits_are_explicit(self) -> None:
        q = sp.Symbol("q", integer=True)
        total = sp.Sum(x[i], i) + sp.Sum(x[q] ** 2, (q, 0, n - 2)) + sp.Sum(x[i] ** 3, (i, 1, n - 2))
        limits = {tuple(part.limits[0]) for part in make_ransac(expression=ransac + total).expression.atoms(sp.Sum)}
        assert limits == {(i, 0, n - 1), (q, 0, n - 2), (i, 1, n - 2)}

    def test_real_parts_of_symbols_that_were_not_declared_real(self) -> None:
        a, b = sp.Symbol("a"), sp.IndexedBase("b", shape=(n,))
        energy = Energy(
            sp.Sum(sp.conjugate(b[i]) * sp.re(a), i) + sp.im(a**2) + r,
            variables=[a],
            data=[b],
            where={r: sp.re(a) ** 2},
            candidates={a: sp.conjugate(b[i])},
        )
        assert energy.expression == sp.Sum(b[i] * a, i) + r
        assert energy.where[r] == a**2
        assert energy.candidates[a] == b[i]

    def test_numbers_are_formulas(self) -> None:
        energy = make_ransac(expression=ransac + r, where={r: np.float64(2.5)}, candidates={t: 0})
        assert energy.where[r] == 2.5
        assert energy.candidates[t] == 0
        assert energy.candidate_index is None

    def test_the_users_dicts_are_copied(self) -> None:
        where, candidates = {u[i]: x[i]}, {t: x[i]}
        energy = make_ransac(expression=ransac + u[0], where=where, candidates=candidates)
        where.clear()
        candidates.clear()
        assert dict(energy.where) == {u[i]: x[i]}
        assert dict(energy.candidates) == {t: x[i]}

    def test_it_cannot_be_changed(self) -> None:
        energy = make_ransac()
        with pytest.raises(AttributeError, match="immutable"):
            energy.name = "other"
        with pytest.raises(AttributeError, match="immutable"):
            del energy.name
        with pytest.raises(TypeError):
            energy.where[u[i]] = t  # type: ignore[index]


ACCEPTED = {
    "same name, other ranges": sp.Sum(x[sp.Idx("a", n)], sp.Idx("a", n)) + sp.Sum(e[sp.Idx("a", m), 0], sp.Idx("a", m)),
    "symbol and Idx of one name": sp.Sum(x[i], i)
    + sp.Sum(x[sp.Symbol("i", integer=True)], (sp.Symbol("i", integer=True), 0, n - 1)),
    "Idx without range, with limits": sp.Sum(x[sp.Idx("a")], (sp.Idx("a"), 0, n - 1)),
    "several at once": sp.Sum(x[i] * y[j], i, (j, 1, n - 2)),
    "partial ranges": sp.Sum((x[i + 1] - x[i]) ** 2, (i, 0, n - 2)),
    "backwards": sp.Sum(x[n - 1 - i] * y[i], i),
    "last entry": x[n - 1] + x[0] + x[7],
    "two indices": sp.Sum(x[i + sp.Idx("a", m)], i, sp.Idx("a", m)),
    "a longer axis": sp.Sum(sp.IndexedBase("L", shape=(n + m - 1,))[i + k], i, k),
    "stride": sp.Sum(x[2 * i] + x[2 * (i + 1) - 1], (i, 0, 3)),
    "diagonal": sp.Sum(sp.IndexedBase("A", shape=(n, n))[i, i], i),
    "gather": sp.Sum((x[e[k, 0]] - x[e[k, 1]]) ** 2, k),
    "integer data as values": sp.Sum(e[k, 0] ** 2, k),
    "indices and extents as values": sp.Sum((i + 1) * x[i], i) / n,
    "sum over numbers": sp.Sum(x[i], (i, 0, 2)),
    "empty range": sp.Sum(x[i], (i, 3, 2)),
    "condition": sp.Sum(sp.Piecewise((x[i], (x[i] > 0) & (i > 2)), (sp.Max(x[i], y[i], 0), True)), i),
    "functions": sp.log(1 + sp.Sum(sp.exp(x[i]), i)) + sp.sqrt(2) * sp.pi + sp.acos(sp.Rational(1, 2)),
    "functions for the compiler to judge": sp.Function("g")(t) + sp.zeta(t),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_it_accepts(name: str) -> None:
    arrays = sorted(ACCEPTED[name].atoms(sp.IndexedBase) - {x, y, e}, key=str)
    Energy(t**2 + ACCEPTED[name], variables=[t], data=[x, y, e, *arrays])


class TestWhere:
    def test_definitions_are_ordered_by_use(self) -> None:
        where = {u[i]: v[i] + r, v[j]: x[j] * r, r: t**2}
        energy = make_ransac(expression=ransac + sp.Sum(u[i], i), where=where)
        assert list(energy.where) == [r, v[j], u[i]]

    def test_the_users_order_is_kept_where_it_can_be(self) -> None:
        names = [sp.Symbol(f"z{number}") for number in range(6)]
        energy = make_ransac(expression=ransac + sum(names), where=dict.fromkeys(reversed(names), t))
        assert list(energy.where) == names[::-1]

    def test_weights_may_be_used_through_definitions(self) -> None:
        energy = Energy(
            sp.Sum(u[i + 1], (i, 0, n - 2)),
            variables=[t],
            weights=[s],
            data=[x],
            where={u[i]: v[i], v[i]: s * t * x[i]},
        )
        assert energy.weights == (s,)

    def test_an_unused_definition_is_allowed(self) -> None:
        assert list(make_ransac(where={r: t**2}).where) == [r]

    def test_a_declared_shape_may_be_given_too(self) -> None:
        shaped = sp.IndexedBase("u", shape=(n,))
        make_ransac(expression=ransac + shaped[0], where={shaped[i]: x[i]})


class TestCandidates:
    def test_scalars(self) -> None:
        energy = make_ransac(candidates={t: x[j]})
        assert dict(energy.candidates) == {t: x[j]}
        assert energy.candidate_index == j

    def test_entries_of_an_array(self) -> None:
        point, c = sp.IndexedBase("p", shape=(2,)), sp.IndexedBase("c", shape=(n, 2))
        total = sp.Sum((c[i, 0] - point[0]) ** 2 + (c[i, 1] - point[1]) ** 2, i)
        energy = Energy(total, variables=[point], data=[c], candidates={point[0]: c[i, 0], point[1]: c[i, 1]})
        assert energy.candidate_index == i

    def test_whole_axes_of_arrays(self) -> None:
        bodies, d = sp.IndexedBase("b", shape=(m, 2)), sp.Idx("d", m)
        c = sp.IndexedBase("c", shape=(n, m))
        total = sp.Sum(bodies[d, 0] ** 2 + bodies[d, 1] ** 2, d)
        starts = {bodies[d, 0]: c[i, d], bodies[d, 1]: sp.Sum(c[i, k] * c[j, k], j, k)}
        assert Energy(total, variables=[bodies], data=[c], candidates=starts).candidate_index == i


class TestEquality:
    def test_the_same_declaration_is_equal(self) -> None:
        assert make_ransac() == make_ransac()
        assert len({make_ransac(), make_ransac()}) == 1
        assert make_ransac() != "ransac"

    @pytest.mark.parametrize(
        "changes",
        [
            {"expression": 2 * ransac},
            {"data": [x, y]},
            {"weights": [], "data": [x, sigma]},
            {"where": {r: t}},
            {"candidates": {t: x[i]}},
            {"name": "other"},
        ],
        ids=str,
    )
    def test_every_part_of_it_counts(self, changes: dict[str, Any]) -> None:
        assert make_ransac(**changes) != make_ransac()

    def test_assumptions_count(self) -> None:
        plain = sp.Symbol("sigma", real=True)
        other = make_ransac(expression=ransac.subs(sigma, plain), weights=[plain])
        assert str(other.expression) == str(make_ransac().expression)
        assert other != make_ransac()

    def test_redundant_assumptions_do_not(self) -> None:
        same = sp.Symbol("sigma", positive=True, real=True)
        assert make_ransac(expression=ransac.subs(sigma, same), weights=[same]) == make_ransac()

    def test_the_formula_key_leaves_the_name_out(self) -> None:
        assert make_ransac(name="other").formula_key == make_ransac().formula_key

    def test_dummies_are_known_by_name(self) -> None:
        keys = {Energy(sp.Sum((x[i] - d) ** 2, i), variables=[d], data=[x]).key for d in (sp.Dummy("d"), sp.Dummy("d"))}
        assert len(keys) == 1

    @pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda energy: pickle.loads(pickle.dumps(energy))])
    def test_copies_are_equal(self, copied: Any) -> None:
        energy = make_ransac(where={u[i]: x[i]}, candidates={t: x[i]})
        again = copied(energy)
        assert again == energy
        assert again.expression == energy.expression
        assert str(again) == str(energy)


IN_ANOTHER_PROCESS = """
import pickle, sys, sympy as sp
from wiberg.energies.energy import Energy
n = sp.Symbol("n", integer=True); i = sp.Idx("i", n)
names = [sp.Symbol(f"a{k}", real=True) for k in range(12)] + [sp.Dummy("d"), sp.Symbol("lambda"), sp.Symbol("x+1")]
x = sp.IndexedBase("x", shape=(n,), real=True); g = sp.Function("g")
total = sum((sp.exp(a * x[0]) - b) ** 2 / (1 + sp.Abs(a)) for a, b in zip(names, names[1:]))
total += sp.Sum(sp.Max(*(a * x[i] for a in names[:6])), i) + g(names[0]) * sp.Float("0.1", 30) * sp.pi
all_, any_ = sp.And(*(a > 0 for a in names)), sp.Or(*(a > 1 for a in names))
total += sp.Piecewise((names[0], all_), (sp.Min(*names), any_), (0, True))
where, candidates = {sp.IndexedBase("u")[i]: x[i]}, {a: x[i] for a in names}
energy = Energy(total, variables=names, data=[x], where=where, candidates=candidates)
print(energy.key, pickle.loads(pickle.dumps(energy)).key)
"""


def test_keys_are_the_same_in_every_process() -> None:
    keys: set[str] = set()
    for seed in ("0", "1", "271828"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", IN_ANOTHER_PROCESS]
        keys |= set(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.split())
    assert len(keys) == 1


def test_construction_is_fast_enough_for_a_warm_start() -> None:
    make_pose()
    start = time.process_time()
    make_pose()
    assert time.process_time() - start < 0.25  # SymPy's construction included; a tenth of it on a quiet machine


def test_the_length_of_the_key_text_is_that_of_the_graph() -> None:
    nested = t
    for _ in range(60):
        nested = sp.Add(sp.exp(nested), sp.sin(nested), evaluate=False)
    assert len(Energy(nested, variables=[t]).key) == 64


class TestDisplay:
    def test_repr_is_short(self) -> None:
        assert repr(make_ransac()) == "Energy('ransac', variables=[t], weights=[sigma], data=[x])"

    def test_str_shows_formula_roles_shapes_definitions_and_candidates(self) -> None:
        energy = make_ransac(expression=ransac + u[0], data=[x, e], where={u[i]: x[i] * t}, candidates={t: x[i]})
        assert str(energy).splitlines() == [
            "energy 'ransac'",
            "  E = u[0] - Sum(exp(-(-t + x[i])**2/sigma**2), (i, 0, n - 1))",
            "  variables  t ()",
            "  weights    sigma () positive",
            "  data       x (n,)",
            "             e (m, 2) integer",
            "  where      u[i] = t*x[i]",
            "  candidates t = x[i]",
        ]

    def test_latex_shows_the_same(self) -> None:
        latex = make_ransac(expression=ransac + u[0], where={u[i]: x[i] * t}, candidates={t: x[i]})._repr_latex_()
        assert latex.startswith(r"$\displaystyle")
        assert latex.endswith("$")
        for part in (
            r"\sum_{i=0}^{n - 1}",
            r"\sigma \quad ()\text{ positive}",
            "x \\quad (n)",
            "{u}_{i} = t {x}_{i}",
            "t = {x}_{i}",
        ):
            assert part in latex

    @pytest.mark.parametrize("name", hostile)
    def test_hostile_names_are_accepted_as_declared(self, name: str) -> None:
        symbol, array, index = sp.Symbol(name), sp.IndexedBase(name + "2", shape=(n,)), sp.Idx(name + "3", n)
        energy = Energy(
            sp.Sum((array[index] - symbol) ** 2, index),
            variables=[symbol],
            data=[array],
            candidates={symbol: array[index]},
            name=name,
        )
        assert list(energy.shapes) == [name, name + "2"]
        assert pickle.loads(pickle.dumps(energy)) == energy
        assert len(str(energy).splitlines()) == 5
        assert len(repr(energy).splitlines()) == 1
        latex = energy._repr_latex_()
        assert is_balanced(latex)
        assert "\n" not in latex

    def test_the_formula_renders(self) -> None:
        mathtext = pytest.importorskip("matplotlib.mathtext")
        formula = make_ransac()._repr_latex_().split("E = ")[1].split(r" \\ ")[0]
        mathtext.MathTextParser("path").parse(f"${formula}$")


def is_balanced(latex: str) -> bool:
    """Whether braces and dollar signs pair once what is escaped has been taken out."""
    bare = latex.replace(r"\\", "").replace(r"\{", "").replace(r"\}", "").replace(r"\$", "")
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth < 0:
            return False
    return depth == 0 and bare.count("$") == 2


def test_an_extreme_entry_of_numbers_stands_in_a_maximum():
    """Found by random energies: SymPy took minimum(2, i) for a number, and could not compare it."""
    i, t = sp.Idx("i", sp.Symbol("n", integer=True, positive=True)), sp.Symbol("t", real=True)
    assert not wb.minimum(sp.Integer(2), i).is_number
    assert sp.Max(wb.minimum(sp.Integer(2), i), t).has(wb.minimum(sp.Integer(2), i))


def test_real_constants_that_sympy_writes_with_i_are_taken():
    total = sp.Sum(sp.Rational(1, 3), (sp.Idx("k"), 0, 2))
    angle = sp.atan2(sp.Float("0.7"), 1 + total**2)  # which SymPy writes as -I*log(...)
    assert angle.has(sp.I)
    energy = Energy(angle * t**2 + sp.Piecewise((t, t > angle), (2 * t, True)), variables=[t])
    value = wb.compile(energy, backend="reference").value({"t": 2.0})
    assert value == pytest.approx(4 * np.arctan2(0.7, 2.0) + 2.0)
    with pytest.raises(wb.DeclarationError, match="not real"):
        Energy(sp.I * t**2, variables=[t])
