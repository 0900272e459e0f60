"""What an energy refuses at its declaration: the message names the energy and what is at fault."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import sympy as sp
from wiberg.energies.energy import Energy
from wiberg.energies.errors import DeclarationError, InputTypeError, UnsupportedError, WibergError
from wiberg.energies.extrema import minimum

n, m, q = (sp.Symbol(name, integer=True, positive=True) for name in "nmq")
i, j, k = sp.Idx("i", n), sp.Idx("j", n), sp.Idx("k", m)
t, s = sp.symbols("t s", real=True)
sigma = sp.Symbol("sigma", positive=True)
x, y = sp.IndexedBase("x", shape=(n,)), sp.IndexedBase("y", shape=(n,))
z = sp.IndexedBase("z", shape=(m,))
A = sp.IndexedBase("A", shape=(n, m))
e = sp.IndexedBase("e", shape=(m, 2), integer=True)
f = sp.IndexedBase("f", shape=(m,))
w = sp.IndexedBase("w", shape=(3,))
over_q = sp.Idx("i", q)
q2 = sp.Symbol("q2", integer=True)
u, v = sp.IndexedBase("u"), sp.IndexedBase("v")
square = sp.Sum((x[i] - t) ** 2, i)


@dataclass
class Case:
    """Arguments of Energy and what its refusal must mention."""

    name: str
    expression: Any
    mentions: tuple[str, ...]
    error: type[WibergError] = DeclarationError
    variables: Any = (t,)
    weights: Any = ()
    data: Any = (x,)
    where: Any = None
    candidates: Any = None


def case(name: str, expression: Any, *mentions: str, **rest: Any) -> Any:
    return pytest.param(Case(name, expression, mentions, **rest), id=name)


ROLES = [
    case("symbol without role", square + q, "symbol q", "no role", "t / - / x"),
    case("array without role", sp.Sum((z[k] - t) ** 2, k), "array z", "no role", data=[x, f]),
    case("two roles", square, "t is declared as variable and as weight", weights=[t]),
    case("listed twice", square, "t is listed twice", variables=[t, t]),
    case("unused weight", square, "weight sigma", "learnt", weights=[sigma]),
    case("unused variable", square, "variable s does not appear", variables=[t, s]),
    case("no variables", square, "no variables", "lambdify", variables=[]),
    case("variables a string", square, "'t' of type str", error=InputTypeError, variables="t"),
    case("variable a string", square, "'t' of type str", error=InputTypeError, variables=["t"]),
    case("variables a symbol", square, "variables=[t]", error=InputTypeError, variables=t),
    case("variables an array", sp.Sum(y[i] ** 2, i), "variables=[y]", error=InputTypeError, variables=y),
    case("variables a set", square, "order", error=InputTypeError, variables={t}),
    case("weights None", square, "weights must be", "NoneType", error=InputTypeError, weights=None),
    case("variable a function", square, "f(t)", error=InputTypeError, variables=[sp.Function("f")(t)]),
    case("variable an entry", y[0] ** 2, "y[0]", "variables=[y]", error=InputTypeError, variables=[y[0]]),
    case("array without shape", u[0] ** 2, "array u has no shape", variables=[u]),
    case("strides", square, "x", "strides", data=[sp.IndexedBase("x", shape=(n,), strides=(2,))]),
    case("positive variable", sigma**2, "variable sigma is declared positive", "logarithm", variables=[sigma]),
    case(
        "integer variable",
        sp.Symbol("g", integer=True) ** 2,
        "variable g is declared integer",
        variables=[sp.Symbol("g", integer=True)],
    ),
    case(
        "negative weight",
        square * sp.Symbol("g", negative=True),
        "weight g is declared negative",
        "positive=True",
        weights=[sp.Symbol("g", negative=True)],
    ),
    case(
        "imaginary symbol",
        sp.Symbol("g", imaginary=True) ** 2,
        "not real",
        "g is declared imaginary",
        variables=[sp.Symbol("g", imaginary=True)],
    ),
    case("weight used in candidates only", square, "weight s does not appear", weights=[s], candidates={t: s * x[i]}),
    case("weight used in an unused let only", square, "weight s does", weights=[s], where={sp.Symbol("r"): s**2}),
]

NAMES = [
    case("twin symbols", square + sp.Symbol("t", positive=True), "two symbols print as 't'", "positive; real"),
    case("twins in roles", square + sp.Symbol("t"), "'t'", "no assumptions; real", weights=[sp.Symbol("t")]),
    case("twins in where", u[0] + t**2, "'t'", where={u[i]: sp.Symbol("t") * x[i]}),
    case("twins in candidates", square, "'s'", weights=[], data=[x, s], candidates={t: sp.Symbol("s")}),
    case("twin arrays", square + sp.IndexedBase("x")[0], "two arrays print as 'x'", "(n,)", "none"),
    case("array and symbol", square + sp.Symbol("x"), "'x' is the name of an array and of a symbol"),
    case("array and index", sp.Sum(x[sp.Idx("x", n)] * t, sp.Idx("x", n)), "'x'", "an array and of an index"),
    case("variable and index", sp.Sum(x[sp.Idx("t", n)] * t, sp.Idx("t", n)), "'t'", "a symbol and of an index"),
    case("extent and weight", square * n, "n is declared as weight", "x (n,)", weights=[n]),
    case("extent and index", square + sp.Sum(n, (n, 0, 3)), "'n'", "a symbol and of an index"),
    case("two Dummies", sp.Dummy("d") + sp.Dummy("d") + t, "'_d'", "a Dummy", data=[sp.Dummy("d")]),
]

FORMULAS = [
    case("matrix", sp.Matrix([t, t]), "shape (2, 1)", "one scalar"),
    case("matrix symbol", sp.MatrixSymbol("M", 2, 2) * t, "shape (2, 2)"),
    case("tuple", (t, t), "shape (2,)"),
    case("list", [t], "shape (1,)"),
    case("numpy array", np.array([1.0, 2.0]), "shape (2,)"),
    case("sympy array", sp.Array([t, t]), "shape (2,)"),
    case("text", "t**2", "'t**2' of type str", error=InputTypeError),
    case("None", None, "NoneType", error=InputTypeError),
    case("set", sp.Interval(0, 1), "Interval", error=InputTypeError),
    case("relation", t**2 / 2 > 1, "relation t**2/2 > 1", "Piecewise"),
    case("equation", sp.Eq(t, 1), "relation Eq(t, 1)"),
    case("truth", True, "condition True"),
    case("complex", sp.I * t, "not real", "contains I"),
    case("complex let", u[0] + t, "not real", "u[i]", where={u[i]: sp.I * x[i]}),
    case("complex candidate", square, "not real", candidates={t: sp.I}),
    case("complex constant", t * sp.acos(2), "not real", "acos(2)"),
    case("complex root", t * sp.root(-2, 3), "not real", "(-2)**(1/3)"),
    case("infinity", t + sp.oo * sigma, "oo", weights=[sigma]),
    case("zoo", sp.Piecewise((sp.zoo, t > 0), (t, True)), "zoo", "division by 0"),
    case("nan", sp.nan, "nan", "0/0"),
    case("large integer", 10**400 * t, "1.00e+400", "float64"),
    case("large float", sp.Float("1e400") * t, "1.00e+400", "float64"),
    case("small rational", t / 10**400, "1.00e-400", "float64"),
    case("large constant function", t * sp.exp(1000), "e+434", "float64"),
    case("derivative", sp.Derivative(sp.Function("g")(t), t), "Derivative(g(t), t)", ".doit()", error=UnsupportedError),
    case("integral", sp.Integral(sp.exp(t * s), (s, 0, 1)), "Integral(", error=UnsupportedError),
    case("limit", sp.Limit(sp.sin(t * s) / s, s, 0), "Limit(", error=UnsupportedError),
    case("matrix element", sp.MatrixSymbol("M", 2, 2)[0, 0] * t, "matrix M has no role", "(known: t / - / x)"),
    case("bare array", t * x, "array x stands without subscripts"),
]

INDICES = [
    case("free index", x[i] * t, "index i of x[i] is not bound by a Sum", "where={u[i]: ...}"),
    case("free index as a value", i * t, "index i of the expression is not bound"),
    case("index without range", x[sp.Idx("i")] * t, "index i has no extent", 'sp.Idx("i", n)'),
    case("let index without range", u[0] * t, "index i has no extent", where={u[sp.Idx("i")]: t}),
    case("free integer symbol", x[q] * t, "index q of x[q] is not bound"),
    case("unknown extent", square + sp.Sum(t, sp.Idx("a", q)), "no array has the extent q", "index a", "n"),
    case(
        "unknown extent in a shape",
        square,
        "no array has the extent q",
        "w (q - 1,)",
        data=[x, sp.IndexedBase("w", shape=(q - 1,))],
    ),
    case(
        "unknown extent of an Idx with other limits", sp.Sum(x[over_q] * t, (over_q, 0, 4)), "no array has the extent q"
    ),
    case("nested in itself", sp.Sum(x[i] * sp.Sum(x[i] * t, i), i), "index i is summed inside a sum over i"),
    case("nested and flattened by SymPy", sp.Sum(sp.Sum(x[i] * t, i), i), "index i is summed inside a sum over i"),
    case("other index of that name", sp.Sum(x[i] * t, (sp.Idx("i"), 0, n - 1)), "index i of x[i]", "one name"),
    case("triangular, outermost first", sp.Sum(x[i] * t, i, (j, 0, i - 1)), "index j", "index i", "innermost index"),
    case("limit by an entry", sp.Sum(t, (j, 0, e[k, 0]), k), "the entry e[k, 0]", data=[x, e], error=UnsupportedError),
    case("beyond a triangle", sp.Sum(x[q2] * t, (q2, 0, i + 1), i), "x[q2] leaves axis 0 (n) at q2 = i + 1"),
    case("product of itself", sp.Product(x[i] * sp.Sum(x[i] * t, i), i), "index i is summed inside"),
    case("minimum over another extent", minimum(x[k] * t, k), "index k runs over m", data=[x, z]),
    case("limit by data", sp.Sum(x[i] * t, (i, 0, sp.floor(s))), "index i", "floor(s)", data=[x, s]),
    case("limit by weight", sp.Sum(x[i] * t, (i, 0, s)), "index i", "weight s", weights=[s]),
    case("limit infinite", sp.Sum(t / 2**q, (q, 1, sp.oo)), "limit oo"),
    case("limit fractional", sp.Sum(t, (i, 0, sp.Rational(5, 2))), "limit 5/2"),
    case("positive index from 0", sp.Sum(x[q] * t, (q, 0, n - 1)), "index q is declared positive", "starts at 0"),
]

SUBSCRIPTS = [
    case(
        "offset out of range",
        sp.Sum((x[i + 1] - t) ** 2, i),
        "x[i + 1] leaves axis 0 (n) at i = n - 1",
        'sp.Idx("i", (0, n - 2))',
    ),
    case(
        "offset below", sp.Sum((x[i - 1] - t) ** 2, i), "x[i - 1] leaves axis 0 (n) at i = 0", 'sp.Idx("i", (1, n - 1))'
    ),
    case("number too large", w[3] * t, "w[3] leaves axis 0 (3)", "0..2", data=[w]),
    case("extent too large", x[n] * t, "x[n] leaves axis 0 (n)", "0..n - 1"),
    case("negative constant", x[-1] * t, "x[-1] has a negative subscript", "write n - 1"),
    case("other extent", sp.Sum(x[i] * z[i] * t, i), "index i runs over n but axis 0 of z has extent m", data=[x, z]),
    case("other extent twice", sp.Sum(A[i, i] * t, i), "index i runs over n but axis 1 of A has extent m", data=[A]),
    case(
        "symbolic over a number",
        sp.Sum(w[i] * x[i] * t, i),
        "index i runs over n but axis 0 of w has extent 3",
        data=[x, w],
    ),
    case("let out of range", sp.Sum(u[i + 1], i) * t, "u[i + 1] leaves axis 0 (n)", where={u[i]: x[i]}),
    case(
        "let over another extent",
        sp.Sum(u[k], k) * t,
        "index k runs over m but axis 0 of u has extent n",
        data=[x, z],
        where={u[i]: x[i]},
    ),
    case("too many subscripts", u[0, 0] * t, "u has 1 axis (n,)", "2 indices u[0, 0]", where={u[i]: x[i]}),
    case("scalar let read as array", u[0] * t, "u", where={sp.Symbol("u"): x[0]}),
    case(
        "gather through reals",
        sp.Sum(x[f[k]] * t, k),
        "f in x[f[k]] must be integer data",
        'IndexedBase("f", shape=(m,), integer=True)',
        data=[x, f],
    ),
    case("gather through a weight", sp.Sum(x[f[k]] * t, k), "f in x[f[k]]", "it is weight", weights=[f]),
    case("gather times an index", sp.Sum(x[k * e[k, 0]] * t, k), "subscript k*e[k, 0]", data=[x, e]),
    case("gather through a real gather", sp.Sum(x[e[f[k], 1]] * t, k), "f in e[f[k], 1]", data=[x, e, f]),
    case("gather out of range", sp.Sum(x[e[k, 2]] * t, k), "e[k, 2] leaves axis 1 (2)", data=[x, e]),
    case("fraction", sp.Sum(x[i / 2] * t, i), "subscript i/2 of x[i/2]"),
    case("real", x[sp.Float(1)] * t, "subscript 1.0"),
    case("variable as subscript", x[t] * t, "subscript t of x[t] depends on variable t"),
    case("product of indices", sp.Sum(x[i * j] * t, i, j), "subscript i*j"),
]

LETS = [
    case("defined through itself", u[0] + t, "u -> u", where={u[i]: u[i] + x[i]}),
    case("a cycle", u[0] + t, "u -> v -> u", where={u[i]: v[i], v[j]: u[j]}),
    case("defined twice", u[0] + t, "where= defines u twice", where={u[i]: x[i], u[j]: t}),
    case("defines data", square, "x is data", where={x[i]: t}),
    case("defines a variable", square, "t is variable", where={t: x[0]}),
    case("defines an extent", square, "n is an extent", where={n: x[0]}),
    case("constant subscript", u[0] + t, "u[0]", "distinct sp.Idx", where={u[0]: x[0]}),
    case("index twice", u[0, 0] + t, "u[i, i]", "distinct", where={u[i, i]: x[i]}),
    case("from 1", u[1] + t, "a = 1..n - 1", where={u[sp.Idx("a", (1, n - 1))]: t}),
    case("other shape", t, "u", "(n,)", "(m,)", data=[x, z], where={sp.IndexedBase("u", shape=(m,))[i]: x[i]}),
    case("free index", u[0] + t, "index j of x[j] is not bound", where={u[i]: x[j]}),
    case("sum over its own index", u[0] + t, "index i is summed inside", where={u[i]: sp.Sum(x[i], i)}),
    case("key a string", square, "'u' of type str", error=InputTypeError, where={"u": t}),
    case("not a dict", square, "where= must be a dict", error=InputTypeError, where=[(u[i], t)]),
    case("vector value", u[0] + t, "u[i]", "shape (2,)", where={u[i]: (t, t)}),
    case("not real", sp.Symbol("g", imaginary=True) * t, "g", "real", where={sp.Symbol("g", imaginary=True): t}),
]

b, c = sp.IndexedBase("b", shape=(2,)), sp.IndexedBase("c", shape=(n,))
d = sp.Idx("d", n)
pair = b[0] ** 2 + b[1] ** 2 + square
CANDIDATES = [
    case("left out variable", square + s, "leaves out variable s ()", variables=[t, s], candidates={t: x[i]}),
    case("left out entry", pair, "leaves out b[1]", "(2,)", variables=[b, t], candidates={t: 0, b[0]: x[i]}),
    case("entry too many", pair, "has b[2]", variables=[b, t], candidates={t: 0, b[0]: 1, b[1]: 1, b[2]: 1}),
    case("whole array", pair, "b[0] or b[d]", error=InputTypeError, variables=[b, t], candidates={b: 0, t: 0}),
    case("negative entry", pair, "b[-1]", variables=[b, t], candidates={b[-1]: 0, b[0]: 0, t: 0}),
    case("entry of a symbolic axis", sp.Sum(c[i] ** 2, i), "c[d]", variables=[c], candidates={c[0]: 1}),
    case(
        "axis over another extent",
        sp.Sum(c[i] ** 2, i),
        "c[k]",
        "extent n",
        variables=[c],
        data=[z],
        candidates={c[k]: 1},
    ),
    case("axis in two ways", pair, "axis 0 of b", variables=[b, t], candidates={t: 0, b[0]: 0, b[sp.Idx("d", 2)]: 0}),
    case("two free indices", square, "by i", "by k", data=[x, z], candidates={t: x[i] + z[k]}),
    case("free index without range", square, "index i has no extent", candidates={t: x[sp.Idx("i")]}),
    case("of a weight", square * s, "s, which is weight", weights=[s], candidates={t: 0, s: x[i]}),
    case("of nothing", square, "s, which has no role", candidates={t: 0, s: x[i]}),
    case(
        "uses a variable", square + s, "candidates=", "reads variable t", variables=[t, s], candidates={t: x[i], s: t}
    ),
    case(
        "uses a let of a variable",
        square + u[0],
        "an intermediate of variables, u",
        where={u[i]: x[i] * v[i], v[i]: t},
        candidates={t: u[i]},
    ),
    case("key a string", square, "'t' of type str", error=InputTypeError, candidates={"t": 0}),
    case("uses a symbol without role", square, "symbol s has no role", candidates={t: s}),
]


@pytest.mark.parametrize("case", [*ROLES, *NAMES, *FORMULAS, *INDICES, *SUBSCRIPTS, *LETS, *CANDIDATES])
def test_a_declaration_that_cannot_be_meant_is_refused_by_name(case: Case) -> None:
    with pytest.raises(case.error) as caught:
        Energy(
            case.expression,
            variables=case.variables,
            weights=case.weights,
            data=case.data,
            where=case.where,
            candidates=case.candidates,
            name="ransac",
        )
    message = str(caught.value)
    assert type(caught.value) is case.error
    assert message.startswith("energy 'ransac': ")
    for mention in case.mentions:
        assert mention in message, message


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(InputTypeError, match="name"):
        Energy(t**2, variables=[t], name=3)  # type: ignore[arg-type]


def test_a_long_formula_is_cut_in_messages() -> None:
    relation = sp.Add(*(sp.Symbol(f"a{number}") ** 2 for number in range(500))) > 0
    with pytest.raises(DeclarationError) as caught:
        Energy(relation, variables=[t])
    assert len(str(caught.value)) < 500


def test_too_many_subscripts_are_refused_by_sympy_itself() -> None:
    with pytest.raises(sp.tensor.indexed.IndexException):
        x[i, j]
