"""Matrix expressions against NumPy, against the same energy in sums, and what is refused."""

from __future__ import annotations

import pickle
import random
from typing import Any

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from wiberg.compiler.derive import derive
from wiberg.energies.energy import Energy
from wiberg.energies.errors import DeclarationError, InputTypeError, UnsupportedError

n, m, k = (sp.Symbol(s, integer=True, positive=True) for s in "nmk")
i, j, e, f = sp.Idx("i", n), sp.Idx("j", m), sp.Idx("e", 2), sp.Idx("f", 5)
SIZES = {n: 4, m: 5, k: 3}


def matrix(name: str, rows: Any, columns: Any) -> Any:
    return sp.MatrixSymbol(name, rows, columns)


A, B, W, P = matrix("A", m, n), matrix("B", n, n), matrix("W", m, m), matrix("P", 2, n)
y, z, b, c, g = matrix("y", n, 1), matrix("z", n, 1), matrix("b", m, 1), matrix("c", 1, n), matrix("g", 5, 1)
S, T, F, one = matrix("S", 2, 2), matrix("T", 3, 3), matrix("F", 5, 5), matrix("one", 1, 1)
t, lam = sp.Symbol("t", real=True), sp.Symbol("lam", real=True)
SYMBOLS = (A, B, W, P, y, z, b, c, g, S, T, F, one, t, lam)
r = A * y - b
turn = sp.Matrix([[sp.cos(t), -sp.sin(t)], [sp.sin(t), sp.cos(t)]])
five = sp.Matrix(5, 5, lambda row, column: row + 2 * column)
eye = sp.Identity


class Numbers:
    """The same symbols as NumPy matrices, columns as (n, 1)."""

    def __init__(self, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.arrays = {}
        for symbol in SYMBOLS:
            shape = tuple(int(sp.sympify(x).subs(SIZES)) for x in getattr(symbol, "shape", ()))
            self.arrays[symbol.name] = generator.uniform(0.3, 1.3, shape)

    def __getattr__(self, name: str) -> Any:
        return self.arrays[name]

    @property
    def r(self) -> Any:
        return self.A @ self.y - self.b

    @property
    def turn(self) -> Any:
        return np.array([[np.cos(self.t), -np.sin(self.t)], [np.sin(self.t), np.cos(self.t)]])

    def given(self, symbol: Any) -> Any:
        """The array as kernels take it: without axes of length 1."""
        array = np.asarray(self.arrays[symbol.name])
        keep = [axis for axis, extent in enumerate(getattr(symbol, "shape", ())) if extent != 1]
        return array.reshape([array.shape[axis] for axis in keep])


def value(expression: Any, numbers: Numbers, **options: Any) -> float:
    used = [symbol for symbol in SYMBOLS if symbol in expression.free_symbols]
    energy = Energy(expression, variables=used, data=[] if A in used else [A], **options)
    arrays = {symbol.name: numbers.given(symbol) for symbol in used}
    kernel = wb.compile(energy, backend="reference")
    return kernel.value(arrays, {}, {} if A in used else {"A": numbers.given(A)})


fives = np.fromfunction(lambda row, column: row + 2 * column, (5, 5))
inv, det, tr = np.linalg.inv, np.linalg.det, np.trace

CASES: dict[str, tuple[Any, Any]] = {
    "square": (r.T * r, lambda v: v.r.T @ v.r),
    "quadratic form": (r.T * W * r, lambda v: v.r.T @ v.W @ v.r),
    "shared factor": (r.T * W.T * W * r, lambda v: ((v.W @ v.r) ** 2).sum()),
    "norm": (sp.sqrt(sp.Trace(r.T * r)), lambda v: np.linalg.norm(v.r)),
    "entry of a product": ((r.T * W * r)[0, 0] + t, lambda v: (v.r.T @ v.W @ v.r).item() + v.t),
    "function of a 1 x 1 matrix": (sp.exp(-(r.T * r) / 2), lambda v: np.exp(-(v.r**2).sum() / 2)),
    "power of a 1 x 1 matrix": ((r.T * r) ** 2, lambda v: (v.r**2).sum() ** 2),
    "scalar times": (lam * (r.T * r), lambda v: v.lam * (v.r**2).sum()),
    "trace": (sp.Trace(B), lambda v: tr(v.B)),
    "trace of a product": (sp.Trace(B * B.T), lambda v: (v.B**2).sum()),
    "trace of three": (sp.Trace(A * A.T * W), lambda v: tr(v.A @ v.A.T @ v.W)),
    "trace of a dyad": (sp.Trace(y * y.T * B), lambda v: v.y.T @ v.B @ v.y),
    "power": (sp.Trace(B**3), lambda v: tr(v.B @ v.B @ v.B)),
    "row times column": (c * B * y, lambda v: v.c @ v.B @ v.y),
    "dyad": (sp.Trace((y * c - B).T * (y * c - B)), lambda v: ((v.y @ v.c - v.B) ** 2).sum()),
    "dot": (sp.DotProduct(y, c) + sp.DotProduct(y, z), lambda v: (v.c @ v.y + v.y.T @ v.z).item()),
    "ridge": (y.T * (B + lam * eye(n)) * z, lambda v: v.y.T @ (v.B + v.lam * np.eye(4)) @ v.z),
    "two identities": (
        sp.Trace((B + lam * eye(n)).T * (B + t * eye(n))),
        lambda v: tr((v.B + v.lam * np.eye(4)).T @ (v.B + v.t * np.eye(4))),
    ),
    "trace of an identity": (sp.Trace(3 * B + lam * eye(n)), lambda v: 3 * tr(v.B) + 4 * v.lam),
    "entry of an identity": (
        sp.Sum((B + lam * eye(n))[i, 0] ** 2, i),
        lambda v: ((v.B + v.lam * np.eye(4))[:, 0] ** 2).sum(),
    ),
    "power in a hadamard product": (sp.Trace(sp.HadamardProduct(B, B**2)), lambda v: tr(v.B * (v.B @ v.B))),
    "identity in a hadamard product": (
        (B * y).T * sp.HadamardProduct(B, sp.DiagMatrix(z) + lam * eye(n)) * B * y,
        lambda v: (v.B @ v.y).T @ (v.B * (np.diag(v.z[:, 0]) + v.lam * np.eye(4))) @ v.B @ v.y,
    ),
    "diagonal": (y.T * sp.DiagMatrix(B * z) * y, lambda v: (v.y**2 * (v.B @ v.z)).sum()),
    "diagonals around": (
        y.T * sp.DiagMatrix(z) * B * sp.DiagMatrix(z) * y,
        lambda v: (v.y * v.z).T @ v.B @ (v.y * v.z),
    ),
    "inverse diagonal": (y.T * sp.DiagMatrix(z).I * y, lambda v: (v.y**2 / v.z).sum()),
    "diagonal of": (sp.DiagonalOf(B).T * y, lambda v: np.diag(v.B) @ v.y),
    "diagonal part": (sp.Trace(sp.DiagonalMatrix(B) * B), lambda v: (np.diag(v.B) ** 2).sum()),
    "all entries": (sp.OneMatrix(1, m) * A * sp.OneMatrix(n, 1), lambda v: v.A.sum()),
    "entries of exp": (sp.OneMatrix(1, m) * A.applyfunc(sp.exp) * sp.OneMatrix(n, 1), lambda v: np.exp(v.A).sum()),
    "own function of entries": (
        y.T * (B * z).applyfunc(lambda x: x**2 + sp.sin(x)),
        lambda v: (v.y * ((v.B @ v.z) ** 2 + np.sin(v.B @ v.z))).sum(),
    ),
    "hadamard": (y.T * sp.HadamardProduct(z, z, y), lambda v: (v.y**2 * v.z**2).sum()),
    "hadamard power": (y.T * sp.HadamardPower(z, 3), lambda v: (v.y * v.z**3).sum()),
    "hadamard powers": (y.T * sp.HadamardPower(z, y), lambda v: (v.y * v.z**v.y).sum()),
    "function matrix": (
        y.T * sp.FunctionMatrix(n, n, "lambda i, j: 1/(i + j + 1)") * y,
        lambda v: v.y.T @ (1 / (np.arange(4)[:, None] + np.arange(4) + 1)) @ v.y,
    ),
    "determinant 2": (sp.log(sp.Determinant(S) ** 2), lambda v: np.log(det(v.S) ** 2)),
    "determinant 3": (sp.Determinant(T), lambda v: det(v.T)),
    "determinant of a product": (sp.Determinant(P * P.T), lambda v: det(v.P @ v.P.T)),
    "inverse 3": (sp.Trace(T.I), lambda v: tr(inv(v.T))),
    "inverse of a 1 x 1 matrix": ((y.T * y).I * one.I, lambda v: 1 / (v.y**2).sum() / v.one),
    "inverse power": (sp.Trace(S**-2), lambda v: tr(inv(v.S) @ inv(v.S))),
    "inverse of a sum": (
        sp.Trace((S * S.T + lam * eye(2)).I),
        lambda v: tr(inv(v.S @ v.S.T + v.lam * np.eye(2))),
    ),
    "inverse of a product": (sp.Trace((P * P.T).I * S), lambda v: tr(inv(v.P @ v.P.T) @ v.S)),
    "explicit column": (
        sp.Matrix([t, lam]).T * S.I * sp.Matrix([t, lam]),
        lambda v: np.array([v.t, v.lam]) @ inv(v.S) @ np.array([v.t, v.lam]),
    ),
    "rotated": (
        sp.Trace((turn * P).T * S * (turn * P)),
        lambda v: tr((v.turn @ v.P).T @ v.S @ (v.turn @ v.P)),
    ),
    "rotated twice": (sp.Trace(turn * S * turn.T), lambda v: tr(v.turn @ v.S @ v.turn.T)),
    "explicit 5 x 5": (sp.Trace(five * F), lambda v: tr(fives @ v.F)),
    "explicit column of 5": (g.T * F * sp.Matrix([1, 2, 3, 4, 5]), lambda v: v.g.T @ v.F @ np.arange(1, 6)),
    "explicit 1 x 1": (y.T * y + sp.Matrix([[t]]), lambda v: (v.y**2).sum() + v.t),
    "norm of an explicit matrix": (sp.Matrix([S[0, 0], t]).norm(), lambda v: np.hypot(v.S[0, 0], v.t)),
    "1 x 1 symbol": (one**2 + 3 * one, lambda v: v.one**2 + 3 * v.one),
    "entries in sums": (sp.Sum(A[j, i] * y[i, 0], i, j), lambda v: (v.A @ v.y).sum()),
    "product in a sum": (sp.Sum(sp.log((A * y)[j, 0]), j), lambda v: np.log(v.A @ v.y).sum()),
    "explicit in a sum": (sp.Sum((turn * P)[e, i] ** 2, e, i), lambda v: ((v.turn @ v.P) ** 2).sum()),
    "explicit in a long sum": (sp.Sum((five * g)[f, 0] ** 2, f), lambda v: ((fives @ v.g) ** 2).sum()),
    "matrix that depends on an index": (
        sp.Sum(sp.Trace(sp.Matrix([[y[i, 0], 1], [1, z[i, 0]]]) * S), i),
        lambda v: sum(tr(np.array([[a, 1], [1, b]]) @ v.S) for a, b in zip(v.y[:, 0], v.z[:, 0], strict=True)),
    ),
}


@pytest.mark.filterwarnings("ignore::wiberg.energies.errors.UnboundedDerivativeWarning")
@pytest.mark.parametrize("name", CASES)
def test_a_matrix_expression_has_the_value_that_numpy_gives(name: str) -> None:
    numbers = Numbers()
    expression, expected = CASES[name]
    want = float(np.asarray(expected(numbers)).item())
    assert value(expression, numbers) == pytest.approx(want, rel=1e-12)


# ---------------------------------------------------------------------------------------------- random expressions


class Draw:
    """Random matrix expressions, and their values as NumPy computes them."""

    EXTENTS = (sp.Integer(1), sp.Integer(2), sp.Integer(3), n, m)

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.generator = np.random.default_rng(seed)
        self.arrays: dict[Any, Any] = {}

    def size(self, extent: Any) -> int:
        return int(extent.subs(SIZES))

    def symbol(self, rows: Any, columns: Any) -> tuple[Any, Any]:
        symbol = matrix(f"M{len(self.arrays)}", rows, columns)
        same = [s for s in self.arrays if s.shape == symbol.shape]
        if same and self.random.random() < 0.6:
            symbol = self.random.choice(same)
        if symbol not in self.arrays:
            self.arrays[symbol] = self.generator.uniform(-1, 1, (self.size(rows), self.size(columns)))
        return symbol, self.arrays[symbol]

    def explicit(self, rows: Any, columns: Any) -> tuple[Any, Any]:
        entries = [[self.random.randint(-2, 2) for _ in range(int(columns))] for _ in range(int(rows))]
        return sp.ImmutableMatrix(entries), np.array(entries, dtype=float)

    def draw(self, depth: int, rows: Any, columns: Any) -> tuple[Any, Any]:
        if depth == 0:
            is_short = rows.is_Integer and columns.is_Integer
            return (self.explicit if is_short and self.random.random() < 0.3 else self.symbol)(rows, columns)
        kinds = [self.plus, self.times, self.times, self.transposed, self.applied, self.hadamard, self.scaled]
        if rows == columns:
            kinds += [self.shifted, self.diagonal]
            if rows in (2, 3):
                kinds.append(self.inverse)
        return self.random.choice(kinds)(depth - 1, rows, columns)

    def plus(self, depth: int, rows: Any, columns: Any) -> tuple[Any, Any]:
        (a, x), (b, y) = self.draw(depth, rows, columns), self.draw(depth, rows, columns)
        return a - 2 * b, x - 2 * y

    def times(self, depth: int, rows: Any, columns: Any) -> tuple[Any, Any]:
        inner = self.random.choice(self.EXTENTS)
        (a, x), (b, y) = self.draw(depth, rows, inner), self.draw(depth, inner, columns)
        return a * b, x @ y

    def transposed(self, depth: int, rows: Any, columns: Any) -> tuple[Any, Any]:
        a, x = self.draw(depth, columns, rows)
        return a.T, x.T

    def applied(self, depth: int, rows: Any, columns: Any) -> tuple[Any, Any]:
        a, x = self.draw(depth, rows, columns)
        return a.applyfunc(sp.tanh), np.tanh(x)

    def hadamard(self, depth: int, rows: Any, columns: Any) -> tuple[Any, Any]:
        (a, x), (b, y) = self.draw(depth, rows, columns), self.draw(depth, rows, columns)
        return sp.HadamardProduct(a, b), x * y

    def scaled(self, depth: int, rows: Any, columns: Any) -> tuple[Any, Any]:
        a, x = self.draw(depth, rows, columns)
        return lam * a / 3, 0.7 * x / 3

    def shifted(self, depth: int, rows: Any, columns: Any) -> tuple[Any, Any]:
        a, x = self.draw(depth, rows, columns)
        return a + lam * eye(rows), x + 0.7 * np.eye(len(x))

    def diagonal(self, depth: int, rows: Any, columns: Any) -> tuple[Any, Any]:
        vector, x = self.draw(depth, rows, sp.Integer(1))
        return (sp.DiagMatrix(vector) if rows != 1 else vector), np.diag(x[:, 0])

    def inverse(self, depth: int, rows: Any, columns: Any) -> tuple[Any, Any]:
        a, x = self.draw(depth, rows, columns)
        return (a * a.T + eye(rows)).I, inv(x @ x.T + np.eye(len(x)))


@pytest.mark.parametrize("seed", range(60))
def test_a_random_matrix_expression_has_the_value_that_numpy_gives(seed: int) -> None:
    draw = Draw(seed)
    expression, array = draw.draw(3, *draw.random.choices(Draw.EXTENTS, k=2))
    used = [symbol for symbol in draw.arrays if expression.has(symbol)]
    extents = [matrix("X", n, 1), matrix("Z", m, 1)]
    scalar = sp.Trace(expression.T * expression) + lam**2
    energy = Energy(scalar, variables=[lam], data=[*used, *extents])
    squeezed = {
        s.name: draw.arrays[s].reshape([k for k, e in zip(draw.arrays[s].shape, s.shape, strict=True) if e != 1])
        for s in used
    }
    kernel = wb.compile(energy, backend="reference")
    got = kernel.value({"lam": 0.7}, {}, {**squeezed, "X": np.ones(4), "Z": np.ones(5)})
    assert got == pytest.approx((array**2).sum() + 0.49, rel=1e-11)


# ---------------------------------------------------------------------------------------------- the same in sums

a_, b_, w_ = sp.IndexedBase("A", shape=(m, n)), sp.IndexedBase("b", shape=(m,)), sp.IndexedBase("W", shape=(m, m))
y_, q = sp.IndexedBase("y", shape=(n,)), sp.Idx("q", m)
u_ = sp.IndexedBase("u")


def gls_in_sums() -> Energy:
    return Energy(
        sp.Sum(u_[j] * sp.Sum(w_[j, q] * u_[q], q), j),
        variables=[y_],
        weights=[w_],
        data=[a_, b_],
        where={u_[j]: sp.Sum(a_[j, i] * y_[i], i) - b_[j]},
    )


def gls_in_matrices() -> Energy:
    return Energy(r.T * W * r, variables=[y], weights=[W], data=[A, b])


@pytest.mark.parametrize("kind", ["value", "gradient", "hessian", "cross", "hvp"])
def test_the_program_is_that_of_the_same_energy_in_sums(kind: str) -> None:
    ours, theirs = (derive(make(), kind) for make in (gls_in_matrices, gls_in_sums))
    assert len(ours.statements) == len(theirs.statements)
    assert sorted(len(s.loops) for s in ours.statements) == sorted(len(s.loops) for s in theirs.statements)


def test_a_difference_that_is_used_twice_is_computed_once() -> None:
    text = str(wb.compile(gls_in_matrices(), backend="reference").program())
    assert text.count("x0[") == 2  # its declaration, and one product


def test_a_product_of_several_matrices_never_multiplies_two_matrices_where_a_vector_is_near() -> None:
    energy = Energy(sp.Trace(y * y.T * B * B * B.T), variables=[y], data=[B])
    assert max(len(s.loops) for s in wb.compile(energy, backend="reference").program().statements) == 2


# ---------------------------------------------------------------------------------------------- a rotation in space


def quaternion_registration() -> Energy:
    """Registration of points in space by a quaternion of any length (Horn 1987), with a robust penalty."""
    q, points, targets, sigma = (
        matrix("q", 4, 1),
        matrix("P", 3, n),
        matrix("Q", 3, n),
        sp.Symbol("sigma", positive=True),
    )
    a, b, c, d = (q[index, 0] for index in range(4))
    rotation = sp.Matrix(
        [
            [a**2 + b**2 - c**2 - d**2, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a**2 - b**2 + c**2 - d**2, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a**2 - b**2 - c**2 + d**2],
        ]
    ) / sp.Trace(q.T * q)
    residual, axis = matrix("r", 3, n), sp.Idx("axis", 3)
    robust = sp.Sum(sp.sqrt(sigma**2 + sp.Sum(residual[axis, i] ** 2, axis)), i)
    return Energy(
        robust + (sp.Trace(q.T * q) - 1) ** 2,
        variables=[q],
        weights=[sigma],
        data=[points, targets],
        where={residual: rotation * points - targets},
        name="quaternion",
    )


def test_a_rotation_by_a_quaternion_has_right_derivatives() -> None:
    report = wb.testing.check_derivatives(quaternion_registration(), trials=4, backend="reference")
    assert report.ok, report


def test_a_rotation_by_a_quaternion_is_found() -> None:
    generator = np.random.default_rng(3)
    points, angle = generator.standard_normal((3, 20)), 0.8
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    kernel = wb.compile(quaternion_registration(), backend="reference")
    solution = wb.minimise(
        kernel, {"sigma": 0.1}, {"P": points, "Q": rotation @ points}, start={"q": np.array([1.0, 0.0, 0.0, 0.1])}
    )
    expected = [np.cos(angle / 2), 0, 0, np.sin(angle / 2)]
    np.testing.assert_allclose(solution.variables["q"], expected, atol=1e-6)


# ---------------------------------------------------------------------------------------------- declaration


class TestDeclaration:
    def test_a_column_and_a_row_are_arrays_of_one_axis(self) -> None:
        energy = Energy(c * B * y, variables=[y], weights=[c], data=[B])
        assert dict(energy.shapes) == {"y": (n,), "c": (n,), "B": (n, n)}

    def test_a_matrix_of_one_entry_is_a_scalar(self) -> None:
        assert Energy(one**2, variables=[one]).shapes == {"one": ()}

    def test_a_batch_has_one_axis_more(self) -> None:
        kernel = wb.compile(Energy(y.T * B * y, variables=[y], data=[B]), backend="reference")
        generator = np.random.default_rng(0)
        columns, square = generator.standard_normal((7, 3)), generator.standard_normal((3, 3))
        expected = np.einsum("bi,ij,bj->b", columns, square, columns)
        np.testing.assert_allclose(kernel.value({"y": columns}, {}, {"B": square}), expected, rtol=1e-13)

    def test_where_names_a_matrix(self) -> None:
        u = matrix("u", m, 1)
        energy = Energy(u.T * u, variables=[y], data=[A, b], where={u: r})
        assert [str(key.base.label) for key in energy.where] == ["u"]

    def test_where_names_an_explicit_matrix(self) -> None:
        turned = matrix("R", 2, 2)
        numbers = Numbers()
        expression = sp.Trace(turned * S) + t
        assert value(expression, numbers, where={turned: turn}) == pytest.approx(
            tr(numbers.turn @ numbers.S) + numbers.t
        )

    def test_candidates_are_given_as_a_matrix(self) -> None:
        energy = Energy(r.T * r, variables=[y], data=[A, b], candidates={y: A.T * b})
        kernel = wb.compile(energy, backend="reference")
        numbers = Numbers()
        solution = wb.minimise(kernel, {}, {"A": numbers.A, "b": numbers.b[:, 0]})
        np.testing.assert_allclose(solution.variables["y"], np.linalg.lstsq(numbers.A, numbers.b[:, 0], rcond=None)[0])

    def test_text_shows_the_matrices(self) -> None:
        text = str(Energy(r.T * W * r + turn[0, 0] * (y.T * y), variables=[y, t], weights=[W], data=[A, b]))
        assert "(-b.T + y.T*A.T)*W*(A*y - b)" in text

    def test_text_shows_an_explicit_matrix_on_one_line(self) -> None:
        text = str(Energy(sp.Trace(turn * S), variables=[t], data=[S]))
        assert "Matrix([[cos(t), -sin(t)], [sin(t), cos(t)]])" in text

    def test_latex_shows_the_matrices(self) -> None:
        assert r"W \left(A y - b\right)" in Energy(r.T * W * r, variables=[y], data=[A, b, W])._repr_latex_()

    def test_a_copy_through_pickle_is_equal_and_shows_the_same(self) -> None:
        energy = Energy(r.T * W * r, variables=[y], weights=[W], data=[A, b], candidates={y: A.T * b})
        again = pickle.loads(pickle.dumps(energy))
        assert (again, str(again)) == (energy, str(energy))

    def test_a_matrix_that_changes_later_changes_nothing(self) -> None:
        changing = sp.Matrix([[t**2]])
        energy = Energy(changing, variables=[t])
        changing[0, 0] = t
        assert "t**2" in str(energy)

    def test_an_even_power_of_a_norm_has_no_kink(self) -> None:
        energy = Energy(sp.Matrix([y[0, 0], y[1, 0]]).norm() ** 2, variables=[y], data=[z])
        assert not energy.expression.has(sp.Abs)

    def test_names_of_the_user_are_not_taken_by_intermediates(self) -> None:
        clash = matrix("(B*y)", n, 1)
        r0 = matrix("r0", n, 1)
        expression = (B * y + clash + r0).T * (B * y) + (B * y).T * r0
        energy = Energy(expression, variables=[y], data=[B, clash, r0])
        assert wb.testing.check_derivatives(energy, trials=2, backend="reference").ok

    @pytest.mark.parametrize(
        "name", ["t0", "q0", "y0", "out", "exp", "shifted", "lambda", "a\nb", '"', "x]; import os", ""]
    )
    def test_a_hostile_name_is_a_name_like_any_other(self, name: str) -> None:
        odd = matrix(name, m, n)
        kernel = wb.compile(Energy((odd * y - b).T * (odd * y - b), variables=[y], data=[odd, b]), backend="reference")
        numbers = Numbers()
        got = kernel.value({"y": numbers.y[:, 0]}, {}, {name: numbers.A, "b": numbers.b[:, 0]})
        assert got == pytest.approx((numbers.r**2).sum())

    @pytest.mark.parametrize("name", ["t0", "q0", "y0", "exp", "a\nb", '"""', "x]; import os"])
    def test_a_hostile_name_is_not_in_the_code(self, name: str) -> None:
        def source(called: str) -> list[str]:
            odd = matrix(called, m, n)
            text = wb.compile(Energy((odd * y - b).T * (odd * y - b), variables=[y], data=[odd, b])).source
            return [line for line in text.splitlines() if not line.lstrip().startswith("#")]

        assert source(name) == source("A")


# ---------------------------------------------------------------------------------------------- errors

u, long = matrix("u", m, 1), matrix("k", k, 1)
REFUSED: dict[str, tuple[type[Exception], str, Any]] = {
    "a vector": (DeclarationError, r"shape \(m, 1\)", lambda: Energy(r, variables=[y], data=[A, b])),
    "no role": (DeclarationError, r"matrix b has no role", lambda: Energy(r.T * r, variables=[y], data=[A])),
    "not a list": (InputTypeError, r"variables=\[y\]", lambda: Energy(r.T * r, variables=y, data=[A, b])),
    "an expression as a variable": (
        InputTypeError,
        r"y\.T of type Transpose",
        lambda: Energy(y.T * y, variables=[y.T]),
    ),
    "unused": (DeclarationError, r"weight B does not appear", lambda: Energy(y.T * y, variables=[y], weights=[B])),
    "product of wrong shapes": (
        DeclarationError,
        r"k columns meet n rows",
        lambda: Energy((A * long).T * (A * long), variables=[long], data=[A]),
    ),
    "sum of wrong shapes": (
        DeclarationError,
        r"m columns meet n rows|n columns meet m rows",
        lambda: Energy((y + u).T * sp.HadamardProduct(y, y), variables=[y, u]),
    ),
    "exponential of a matrix": (DeclarationError, r"applyfunc\(sp\.exp\)", lambda: Energy(sp.exp(B), variables=[B])),
    "large inverse": (UnsupportedError, r"up to 3 x 3", lambda: Energy(sp.Trace(B.I), variables=[B])),
    "large determinant": (
        UnsupportedError,
        r"B has the shape \(n, n\)",
        lambda: Energy(sp.Determinant(B), variables=[B]),
    ),
    "large explicit matrix": (
        UnsupportedError,
        r"20 x 20",
        lambda: Energy(sp.Trace(sp.ones(20, 20) * matrix("Q", 20, 20)), variables=[matrix("Q", 20, 20)]),
    ),
    "slice": (UnsupportedError, r"MatrixSlice", lambda: Energy(y[0:2, 0].T * y[0:2, 0], variables=[y])),
    "blocks": (
        UnsupportedError,
        r"BlockMatrix",
        lambda: Energy(sp.Trace(sp.BlockMatrix([[S, S]]) * sp.BlockMatrix([[S], [S]])), variables=[S]),
    ),
    "fractional power": (
        UnsupportedError,
        r"exponent 1/2",
        lambda: Energy(sp.Trace(S ** sp.Rational(1, 2)), variables=[S]),
    ),
    "symbolic power": (UnsupportedError, r"exponent t", lambda: Energy(sp.Trace(S**t), variables=[S, t])),
    "two matrices of one name": (
        DeclarationError,
        r"'S'.*\(2, 2\).*\(3, 3\)|'S'.*\(3, 3\).*\(2, 2\)",
        lambda: Energy(sp.Trace(matrix("S", 3, 3)) * sp.Trace(S), variables=[S]),
    ),
    "matrix and scalar of one name": (
        DeclarationError,
        r"'S' is the name",
        lambda: Energy(sp.Trace(S) * sp.Symbol("S"), variables=[S]),
    ),
    "where through itself": (
        DeclarationError,
        r"u -> u",
        lambda: Energy(y.T * y, variables=[y], data=[b], where={u: u + b}),
    ),
    "where of another shape": (
        DeclarationError,
        r"u has the shape \(m, 1\)",
        lambda: Energy(y.T * y, variables=[y], where={u: y}),
    ),
    "where of a variable": (
        DeclarationError,
        r"defines the matrix y, but it is variable",
        lambda: Energy(y.T * y, variables=[y], where={y: y}),
    ),
    "where of a scalar": (
        DeclarationError,
        r"by t, which is no matrix",
        lambda: Energy(y.T * y, variables=[y], where={u: t}),
    ),
    "where with a free index": (
        DeclarationError,
        r"depends on index i",
        lambda: Energy(y.T * y, variables=[y], where={S: sp.Matrix(2, 2, [y[i, 0], 0, 0, 1])}),
    ),
    "candidates of another shape": (
        DeclarationError,
        r"y has the shape \(n, 1\)",
        lambda: Energy(y.T * y, variables=[y], data=[b], candidates={y: b}),
    ),
    "candidates of a scalar": (
        DeclarationError,
        r"by t, which is no matrix",
        lambda: Energy(y.T * y, variables=[y], data=[t], candidates={y: t}),
    ),
    "a free index": (DeclarationError, r"index i of y\[i\] is not bound", lambda: Energy(y[i, 0], variables=[y])),
    "a subscript too large": (
        DeclarationError,
        r"y\[i \+ 1\] leaves",
        lambda: Energy(sp.Sum(y[i + 1, 0], i), variables=[y]),
    ),
    "a symbolic subscript of an explicit matrix": (
        DeclarationError,
        r"written out at i",
        lambda: Energy(sp.Sum(sp.ImmutableMatrix([t, 1])[i, 0], i), variables=[t], data=[y]),
    ),
    "explicit 1 x 2": (DeclarationError, r"shape \(1, 2\)", lambda: Energy(sp.Matrix([[t, 1]]), variables=[t])),
    "complex": (DeclarationError, r"not real", lambda: Energy(sp.Matrix([[sp.I * t]]), variables=[t])),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_meant_is_refused(name: str) -> None:
    kind, message, make = REFUSED[name]
    with pytest.raises(kind, match=message) as caught:
        make()
    assert str(caught.value).startswith("energy 'energy': ")
    assert type(caught.value) is kind
