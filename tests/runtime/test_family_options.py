"""Every option of minimise for families: each member ends as the same minimisation does without a family.

The family is compared with a batch of its members, for which data are gathered by hand. Weights with an index of the
family are weights with a batch axis there.
"""

import pickle

import numpy as np
import pytest
import sympy as sp
import wiberg as wb
from hypothesis import given, settings
from hypothesis import strategies as st
from wiberg import Status
from wiberg.compiler.calls import evaluate

n, q, k = sp.symbols("n q k", integer=True, positive=True)
m, i, j, r = sp.Idx("m", n), sp.Idx("i", q), sp.Idx("j", k), sp.Idx("r", 2)
t, z = sp.symbols("t z", real=True)
s = sp.Symbol("s", positive=True)
y, x = sp.IndexedBase("y", shape=(2,)), sp.IndexedBase("x", shape=(k,))
SIZE = 9


def wells(over=(m, i)):
    """Unknowns y and t: robust residuals with several minima, and a table that all members share."""
    a, b = sp.IndexedBase("a", shape=(n,)), sp.IndexedBase("b", shape=(q,))
    shift, turn = sp.Symbol("shift", real=True), sp.Symbol("turn", real=True)
    if m in over:
        shift = a[m]
    if i in over:
        turn = b[i]
    residual = x[j] - t - shift - z * sp.cos(j + turn) * y[0] - sp.sin(j * (1 + turn)) * y[1]
    ridge = sp.Sum((y[r] - turn / 10) ** 2, r) + (t - 1) ** 2 / 100
    formula = sp.Sum(wb.geman_mcclure(residual**2, s), j) + ridge
    where = {z: 1 + sp.Sum(sp.exp(-(x[j] ** 2)), j) / SIZE}
    weights = [s, a if m in over else shift, b if i in over else turn]
    return wb.Energy(formula, variables=[t, y], weights=weights, data=[x], where=where, over=over, name="wells")


KERNELS = {}


def compiled(over):
    if over not in KERNELS:
        KERNELS[over] = wb.compile(wells(over))
    return KERNELS[over]


class Case:
    """A family with its inputs, and the batch of its members."""

    def __init__(self, over, sizes, batch, seed=0, batched_weights=False):
        rng = np.random.default_rng(seed)
        self.family = tuple(size for index, size in zip((m, i), sizes, strict=True) if index in over)
        self.lead = (() if batch is None else (batch,)) + self.family
        self.kernel, self.alone = compiled(over), compiled(())
        count = 1 if batch is None else batch
        own = (count,) if batched_weights else ()
        shift = rng.normal(size=(*own, sizes[0] if m in over else 1))
        turn = rng.normal(size=(*own, sizes[1] if i in over else 1))
        data = rng.choice([0.0, 4.0, 9.0], size=(count, SIZE)) + 0.4 * rng.normal(size=(count, SIZE))
        self.w = {"s": 1.0}
        self.w |= {"a": shift} if m in over else {"shift": shift[..., 0]}
        self.w |= {"b": turn} if i in over else {"turn": turn[..., 0]}
        self.x = {"x": data if batch is not None else data[0]}
        whole = (count, sizes[0] if m in over else 1, sizes[1] if i in over else 1)
        rows = {"shift": shift.reshape(-1, shift.shape[-1], 1), "turn": turn.reshape(-1, 1, turn.shape[-1])}
        self.w_rows = {"s": 1.0, **{name: np.broadcast_to(v, whole).ravel() for name, v in rows.items()}}
        self.x_rows = {"x": np.repeat(data, whole[1] * whole[2], axis=0)}

    def rows(self, values):
        """Arrays along the axes of the family, as a batch."""
        return {name: np.asarray(v).reshape(-1, *np.shape(v)[len(self.lead) :]) for name, v in values.items()}

    def both(self, own, **options):
        """The solutions of the family and of the batch; of each of `own`, arrays along `lead` become a batch."""
        rows = {}
        for name, values in own.items():
            if name == "bounds":
                sides = [self.rows({v: pair[side] for v, pair in values.items()}) for side in (0, 1)]
                rows[name] = {v: (sides[0][v], sides[1][v]) for v in values}
            else:
                rows[name] = self.rows(values)
        ours = wb.minimise(self.kernel, self.w, self.x, **own, **options)
        return ours, wb.minimise(self.alone, self.w_rows, self.x_rows, **rows, **options)


OVERS = {"m": (m,), "m, i": (m, i), "i": (i,)}
CASES = [
    ("m, i", (3, 4), 2, False),
    ("m, i", (3, 4), None, False),
    ("m, i", (2, 3), 3, True),
    ("m, i", (1, 5), 1, False),
    ("m", (4, 1), None, False),
    ("m", (4, 1), 2, True),
    ("i", (1, 3), 2, False),
]


@pytest.fixture(params=CASES, ids=lambda c: f"{c[0]}: {c[1]} x {c[2]}{', weights too' * c[3]}")
def case(request):
    over, sizes, batch, weights = request.param
    return Case(OVERS[over], sizes, batch, batched_weights=weights)


def starts(case, seed=1):
    rng = np.random.default_rng(seed)
    return {"t": rng.normal(3, 3, size=case.lead), "y": 0.1 * rng.normal(size=(*case.lead, 2))}


def candidates(case):
    points = np.broadcast_to(np.array([-1.0, 0.5, 4.0, 8.0]), (*case.lead, 4))
    return {"t": points, "y": np.zeros((*case.lead, 4, 2))}


def bounds(case):
    rng = np.random.default_rng(5)
    low = rng.normal(2, 1, size=case.lead)
    return {
        "t": (low, low + rng.uniform(0, 3, size=case.lead)),
        "y": (np.full((*case.lead, 2), -0.1), np.full((*case.lead, 2), np.inf)),
    }


OPTIONS = {
    "trust-region": ({"start": starts}, {}),
    "l-bfgs": ({"start": starts}, {"method": "l-bfgs"}),
    "newton-cg": ({"start": starts}, {"method": "newton-cg"}),
    "irls": ({"start": starts}, {"method": "irls"}),
    "three reweightings": ({"start": starts}, {"method": "irls", "reweightings": 3}),
    "irls from candidates": ({"candidates": candidates}, {"method": "irls"}),
    "few iterations": ({"start": starts}, {"max_iterations": 3}),
    "bounds": ({"start": starts, "bounds": bounds}, {}),
    "bounds and candidates": ({"candidates": candidates, "bounds": bounds}, {}),
    "minima of candidates": ({"candidates": candidates}, {"minima": 3}),
    "minima of restarts": ({"start": starts}, {"minima": 3, "restarts": 4, "seed": 3}),
    "lowest of restarts": ({"candidates": candidates}, {"restarts": 3}),
    "minima within bounds": ({"candidates": candidates, "bounds": bounds}, {"minima": 2}),
    "minima by irls": ({"candidates": candidates}, {"minima": 3, "method": "irls"}),
    "trace": ({"start": starts}, {"trace": True}),
    "trace of irls": ({"start": starts}, {"trace": True, "method": "irls", "reweightings": 4}),
    "callback": ({"start": starts}, {"callback": lambda done, total: None}),
    "everything": (
        {"candidates": candidates, "bounds": bounds},
        {"minima": 2, "restarts": 2, "trace": True, "callback": lambda done, total: None, "check": False},
    ),
}


def solved(case, option):
    own, options = OPTIONS[option]
    return case.both({name: make(case) for name, make in own.items()}, **options)


def same(ours, theirs, case, **tolerances):
    """Arrays along `lead`, and their batch."""
    assert np.shape(ours)[: len(case.lead)] == case.lead
    np.testing.assert_allclose(
        np.asarray(ours, float).reshape(np.shape(theirs)), np.asarray(theirs, float), **{"atol": 1e-6, **tolerances}
    )


@pytest.mark.parametrize("option", OPTIONS)
def test_members_end_as_they_do_without_a_family(case, option):
    ours, theirs = solved(case, option)
    assert ours.energy.shape == ours.status.shape == case.lead
    for name in ("status", "iterations"):
        np.testing.assert_array_equal(np.ravel(getattr(ours, name)), getattr(theirs, name), err_msg=name)
    same(ours.energy, theirs.energy, case, rtol=1e-9)
    for name, values in theirs.variables.items():
        same(ours.variables[name], values, case)
        np.testing.assert_array_equal(ours.active[name].reshape(values.shape), theirs.active[name])
    if theirs.minima is not None:
        assert len(ours.minima) == len(theirs.minima) and ours.minima.starts == theirs.minima.starts
        np.testing.assert_array_equal(np.ravel(ours.minima.count), theirs.minima.count)
        assert ours.minima.count.shape == ours.minima.evaluations.shape == case.lead
        same(ours.minima.energy, theirs.minima.energy, case)
        same(ours.minima.status, theirs.minima.status, case)
        for name, values in theirs.minima.variables.items():
            same(ours.minima.variables[name], values, case)
    if theirs.trace is not None:
        same(ours.trace.energy, theirs.trace.energy, case)
        same(ours.trace.step_length, theirs.trace.step_length, case)
        for name, values in theirs.trace.variables.items():
            same(ours.trace.variables[name], values, case)


@pytest.mark.parametrize("option", [name for name in OPTIONS if "trace" not in name and "callback" not in name])
def test_derivatives_are_the_sums_of_those_of_the_members(case, option):
    ours, theirs = solved(case, option)
    rng = np.random.default_rng(7)
    slopes = {"t": rng.normal(size=case.lead), "y": rng.normal(size=(*case.lead, 2))}
    functions = {"implicit": lambda *given: wb.implicit_gradient(*given, unconverged="use")}
    if theirs.problem.method == "irls" and theirs.minima is None:
        functions |= {"unrolled": wb.unrolled_gradient}
    for who, function in functions.items():
        found, expected = function(case.kernel, ours, slopes), function(case.alone, theirs, case.rows(slopes))
        whole = (*([ours.lead[0]] if ours.batched else [1]), *case.family)
        batched = any(np.ndim(case.w[name]) > len(case.kernel.energy.shapes[name]) for name in case.w)
        for name, values in found.items():
            every = expected[{"a": "shift", "b": "turn"}.get(name, name)]
            if np.shape(every):
                index = {"a": 1, "b": len(whole) - 1}.get(name)
                own = batched and np.ndim(case.w[name]) > len(case.kernel.energy.shapes[name])
                kept = {index} | ({0} if own else set())
                every = every.reshape(whole).sum(axis=tuple(axis for axis in range(len(whole)) if axis not in kept))
            np.testing.assert_allclose(values, every, rtol=1e-5, atol=1e-6, err_msg=f"{who} {name}")


def test_the_start_of_irls_has_a_derivative_for_each_member(case):
    ours, theirs = solved(case, "three reweightings")
    slopes = starts(case, seed=8)
    found = wb.unrolled_start_gradient(case.kernel, ours, slopes)
    expected = wb.unrolled_start_gradient(case.alone, theirs, case.rows(slopes))
    for name, values in expected.items():
        same(found[name], values, case)


# ------------------------------------------------------------------------------------------- other energies


def quadratic(family):
    """Four unknowns, seen along three directions: the Hessian is singular, and turns with the weights."""
    g, b = sp.IndexedBase("g", shape=(*((n,) if family else ()), 3, 4)), sp.IndexedBase("b", shape=(3,))
    u, d, own = sp.IndexedBase("u", shape=(4,)), sp.Idx("d", 4), (m,) if family else ()
    c = sp.Idx("c", 3)
    formula = sp.Sum((sp.Sum(g[(*own, c, d)] * u[d], d) - b[c]) ** 2, c)
    return wb.Energy(formula, variables=[u], weights=[g], data=[b], over=own, name="flat")


def coupled(family):
    """Many unknowns that are all coupled, and a different pull in each member."""
    a, own = (sp.IndexedBase("a", shape=(n,))[m], (m,)) if family else (sp.Symbol("a", real=True), ())
    u, p = sp.IndexedBase("u", shape=(k,)), sp.Idx("p", k)
    formula = sp.Sum(sp.sqrt(1 + (u[j] - a * x[j]) ** 2), j) + sp.Sum(u[p], p) ** 2 / k
    return wb.Energy(formula, variables=[u], weights=[a.base if family else a], data=[x], over=own, name="coupled")


def chain(family):
    """A signal over many unknowns, smoothed with several strengths; edges are index data."""
    g, own = (sp.IndexedBase("g", shape=(n,))[m], (m,)) if family else (sp.Symbol("g", positive=True), ())
    u, e = sp.IndexedBase("u", shape=(k,)), sp.IndexedBase("e", shape=(q, 2), integer=True)
    formula = sp.Sum((u[j] - x[j]) ** 2, j) + g * sp.Sum(sp.sqrt(1 + (u[e[i, 0]] - u[e[i, 1]]) ** 2), i)
    return wb.Energy(formula, variables=[u], weights=[g.base if family else g], data=[x, e], over=own, name="chain")


def signals(size, batch=2, seed=0):
    """Data and starts; every instance of the batch has edges of its own."""
    rng = np.random.default_rng(seed)
    paths = np.stack([rng.permutation(size) for _ in range(batch)])
    data = {"x": rng.normal(size=(batch, size)).cumsum(axis=1), "e": np.stack([paths[:, 1:], paths[:, :-1]], axis=-1)}
    return data, np.array([0.3, 1.0, 3.0])


def repeated(data, members):
    return {name: np.repeat(values, members, axis=0) for name, values in data.items()}


@pytest.mark.parametrize("method", ["trust-region", "l-bfgs", "newton-cg"])
def test_singular_quadratic_members_have_the_minimisers_of_least_length(method):
    rng = np.random.default_rng(0)
    weights, b = rng.normal(size=(5, 3, 4)), rng.normal(size=(2, 3))
    start = {"u": np.ones(4)}
    family, alone = wb.compile(quadratic(True)), wb.compile(quadratic(False))
    ours = wb.minimise(family, {"g": weights}, {"b": b}, start=start, method=method)
    rows = np.tile(weights, (2, 1, 1))
    theirs = wb.minimise(alone, {"g": rows}, {"b": np.repeat(b, 5, axis=0)}, start=start, method=method)
    np.testing.assert_array_equal(ours.status.ravel(), theirs.status)
    np.testing.assert_array_equal(ours.curvature.ravel() == 0, theirs.curvature == 0)
    np.testing.assert_allclose(ours.variables["u"].reshape(-1, 4), theirs.variables["u"], atol=1e-7)
    if method == "trust-region":
        least = np.stack(
            [np.linalg.lstsq(w, r, rcond=None)[0] for w, r in zip(rows, np.repeat(b, 5, axis=0), strict=True)]
        )
        np.testing.assert_allclose(ours.variables["u"].reshape(-1, 4), least, atol=1e-8)
    slopes = rng.normal(size=(2, 5, 4))
    found = wb.implicit_gradient(family, ours, {"u": slopes}, unconverged="use")["g"]
    expected = wb.implicit_gradient(alone, theirs, {"u": slopes.reshape(-1, 4)}, unconverged="use")["g"]
    np.testing.assert_allclose(found, expected.reshape(2, 5, 3, 4).sum(axis=0), rtol=1e-6, atol=1e-9)
    jacobian = wb.implicit_jacobian(family, ours).reshape(2, 5, 4, 5, 12)
    others = wb.implicit_jacobian(alone, theirs).reshape(2, 5, 4, 12)
    for member in range(5):
        np.testing.assert_allclose(jacobian[:, member, :, member], others[:, member], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("options", [{"method": "l-bfgs"}, {"method": "newton-cg"}], ids=lambda o: o["method"])
@pytest.mark.parametrize("batched", [False, True])
def test_members_with_many_coupled_unknowns(options, batched):
    size, pulls = 600, np.array([-1.0, 0.5, 2.0])
    data = {"x": np.random.default_rng(1).normal(size=(2, size))}
    family, alone = wb.compile(coupled(True)), wb.compile(coupled(False))
    w = np.stack([pulls, pulls]) if batched else pulls
    ours = wb.minimise(family, {"a": w}, data, start={"u": np.zeros(size)}, **options)
    theirs = wb.minimise(alone, {"a": np.tile(pulls, 2)}, repeated(data, 3), start={"u": np.zeros(size)}, **options)
    assert ours.converged.all()
    np.testing.assert_allclose(ours.variables["u"].reshape(6, size), theirs.variables["u"], atol=1e-6)
    slopes = np.random.default_rng(2).normal(size=(2, 3, size))
    found = wb.implicit_gradient(family, ours, {"u": slopes})["a"]
    each = wb.implicit_gradient(alone, theirs, {"u": slopes.reshape(6, size)})["a"].reshape(2, 3)
    np.testing.assert_allclose(found, each if batched else each.sum(axis=0), rtol=1e-5)


LONG = {
    "plain": {},
    "callback": {"callback": lambda done, total: None},
    "bounds": {"bounds": {"u": (-2.0, None)}},
    "bounds of members": {"bounds": {"u": (np.array([-2.0, -1.0, 0.0])[:, None], np.full((2, 1, 1), 5.0))}},
    "minima": {"minima": 2, "restarts": 2},
    "few iterations": {"max_iterations": 2, "trace": True},
}


@pytest.mark.parametrize("option", LONG)
def test_members_with_many_unknowns_and_sparse_hessians(option):
    """Each instance has a pattern of its own, which parts of the rows must find."""
    size = 230
    data, strengths = signals(size)
    family, alone = wb.compile(chain(True)), wb.compile(chain(False))
    options, theirs_too = LONG[option], dict(LONG[option])
    if option == "bounds of members":
        theirs_too["bounds"] = {"u": (np.tile([-2.0, -1.0, 0.0], 2)[:, None] * np.ones(size), 5.0)}
    start = {"u": np.zeros(size)}
    ours = wb.minimise(family, {"g": strengths}, data, start=start, **options)
    rows = repeated(data, 3)
    theirs = wb.minimise(alone, {"g": np.tile(strengths, 2)}, rows, start=start, **theirs_too)
    np.testing.assert_array_equal(ours.status.ravel(), theirs.status)
    np.testing.assert_allclose(ours.energy.ravel(), theirs.energy, rtol=1e-10)
    np.testing.assert_allclose(ours.variables["u"].reshape(6, size), theirs.variables["u"], atol=1e-6)
    np.testing.assert_array_equal(ours.active["u"].reshape(6, size), theirs.active["u"])
    if ours.trace is not None:
        np.testing.assert_allclose(ours.trace.energy.reshape(6, -1), theirs.trace.energy, rtol=1e-9)
        assert str(ours.explain((1, 2))).split(":", 1)[1] == str(theirs.explain(5)).split(":", 1)[1]
    slopes = np.random.default_rng(2).normal(size=(2, 3, size))
    found = wb.implicit_gradient(family, ours, {"u": slopes}, unconverged="use")["g"]
    each = wb.implicit_gradient(alone, theirs, {"u": slopes.reshape(6, size)}, unconverged="use")["g"].reshape(2, 3)
    np.testing.assert_allclose(found, each.sum(axis=0), rtol=1e-5, atol=1e-9)


# ------------------------------------------------------------------------------------------- bounds


@pytest.fixture(scope="module")
def small():
    return Case((m, i), (2, 3), 2)


SHAPES = {
    "a number": lambda full: full[0, 0, 0, 0],
    "as declared": lambda full: full[0, 0, 0],
    "for each member": lambda full: full[0],
    "for each of an index": lambda full: full[0][:, :1],
    "for each instance": lambda full: full[:, :1, :1],
    "for all": lambda full: full,
}


@pytest.mark.parametrize("given_as", SHAPES)
@pytest.mark.parametrize("unbatched", [False, True])
def test_bounds_have_the_forms_of_starts(small, given_as, unbatched):
    """Where nothing else has a batch axis, that of bounds makes a batch."""
    full = np.random.default_rng(3).uniform(-1.0, 0.1, size=(2, 2, 3, 2))
    low = SHAPES[given_as](full)
    whole = np.broadcast_to(low, (2, 2, 3, 2))
    data = {"x": small.x["x"][0]} if unbatched else small.x
    start = {"t": np.array([[0.5, 4.0, 8.0]] * 2), "y": np.zeros(2)}
    solution = wb.minimise(small.kernel, small.w, data, start=start, bounds={"y": (low, low + 0.2)})
    batched = not unbatched or np.ndim(low) == 4
    assert solution.energy.shape == ((2,) if batched else ()) + (2, 3)
    found = np.broadcast_to(solution.variables["y"], whole.shape)
    assert (found >= whole).all() and (found <= whole + 0.2).all()
    expected = wb.minimise(small.kernel, small.w, data, start=start, bounds={"y": (whole.copy(), whole + 0.2)})
    np.testing.assert_array_equal(found, expected.variables["y"])
    assert any(held.any() for held in solution.active.values())


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (
            {"y": (np.zeros((3, 2)), None)},
            r"low has shape \(3, 2\); .* \(2,\), or with the axes \(2, 3\) of the family",
        ),
        ({"t": (np.zeros((3, 2)), None)}, r"low has shape \(3, 2\); expected one that broadcasts to \(\)"),
        ({"t": (np.zeros((5, 2, 3)), None)}, "batch sizes disagree: bounds have 5, weights and data 2"),
        ({"t": (np.diag([1.0, 1.0, 1.0])[:2], 0.5)}, r"bounds t of member \(0, 0, 0\): nothing lies between low 1"),
        (
            {"y": (np.full((2, 1, 1, 2), [[[[0.0, 0.0]]], [[[0.0, 9.0]]]]), 1.0)},
            r"y\[1\] of member \(1, 0, 0\): nothing",
        ),
    ],
)
def test_bounds_that_do_not_fit_are_refused(small, bounds, message):
    with pytest.raises(wb.InputError, match=message):
        wb.minimise(small.kernel, small.w, small.x, start={"t": 0.0, "y": np.zeros(2)}, bounds=bounds)


# ------------------------------------------------------------------------------------------- parts


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), batch=st.integers(1, 5), method=st.sampled_from(["trust-region", "irls"]))
def test_reports_change_no_bit(seed, batch, method):
    case, calls = Case((m, i), (3, 4), batch, seed), []
    options = {"start": {"t": 3.0, "y": np.zeros(2)}, "method": method}
    plain = wb.minimise(case.kernel, case.w, case.x, **options)
    told = wb.minimise(case.kernel, case.w, case.x, **options, callback=lambda *numbers: calls.append(numbers))
    for name in ("y", "energies", "reals", "integers"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(told, name), err_msg=name)
    assert calls[0] == (min(16, 12 * batch), 12 * batch) and calls[-1] == (12 * batch, 12 * batch)


def test_what_members_share_is_computed_once_whatever_the_parts(small, monkeypatch):
    computed = []

    def counted(entry, *arguments, **options):
        computed.extend([entry.kind] if entry.kind.startswith("common") else [])
        return run(entry, *arguments, **options)

    run = evaluate.run
    assert small.kernel.entry("value_gradient_hessian").common is not None
    monkeypatch.setattr(evaluate, "run", counted)
    start = {"t": np.linspace(0, 8, 12).reshape(2, 2, 3), "y": np.zeros(2)}
    solution = wb.minimise(
        small.kernel, small.w, small.x, start=start, minima=3, restarts=3, trace=True, callback=lambda done, total: None
    )
    solution.explain((1, 1, 2))
    assert len(computed) == len(set(computed)) >= 2


def test_progress_counts_members(small, capsys):
    wb.minimise(small.kernel, small.w, small.x, start={"t": 0.0, "y": np.zeros(2)}, progress=True)
    assert "12/12" in (shown := capsys.readouterr().err) and "member/s" in shown


def test_streams_of_families_are_those_of_minimise(small):
    cases = [Case((m, i), (2, 3), batch, seed) for seed, batch in enumerate([3, 1, 2])]
    batches = [wb.Batch(case.x, start={"t": 3.0, "y": np.zeros(2)}) for case in cases]
    calls = []
    w = cases[0].w
    stream = wb.minimise_stream(
        small.kernel, w, iter(batches), method="irls", minima=1, callback=lambda *numbers: calls.append(numbers)
    )
    for case, batch, solution in zip(cases, batches, stream, strict=True):
        alone = wb.minimise(case.kernel, w, batch.data, start=batch.start, method="irls")
        assert solution.energy.shape == case.lead
        np.testing.assert_array_equal(solution.y, alone.y)
    assert calls == [(18, None), (24, None), (36, None)]


def test_solutions_with_all_options_can_be_pickled(small):
    solution = solved(small, "everything")[0]
    again = pickle.loads(pickle.dumps(solution))
    np.testing.assert_array_equal(again.trace.energy, solution.trace.energy)
    np.testing.assert_array_equal(again.minima.variables["y"], solution.minima.variables["y"])
    np.testing.assert_array_equal(again.active["t"], solution.active["t"])
    assert str(again.explain((1, 0, 2))) == str(solution.explain((1, 0, 2)))


def test_instances_with_nan_are_left_out_of_every_part(small):
    start = {"t": 3.0, "y": np.zeros(2)}
    bad = {"x": np.concatenate([small.x["x"], small.x["x"] * np.nan, small.x["x"]])}
    good = wb.minimise(small.kernel, small.w, small.x, start=start, method="irls", restarts=2)
    found = wb.minimise(
        small.kernel, small.w, bad, start=start, method="irls", restarts=2, check=False, callback=lambda *numbers: None
    )
    assert (found.status[2:4] == Status.NOT_FINITE).all()
    for kept in (slice(0, 2), slice(4, 6)):
        np.testing.assert_array_equal(found.variables["y"][kept], good.variables["y"])


def test_families_without_members_have_every_option(small):
    w = {**small.w, "a": np.zeros(0)}
    options = {"minima": 2, "restarts": 1, "trace": True, "callback": lambda *numbers: None}
    bounds = {"t": (np.zeros((1, 3)), None)}
    none = wb.minimise(small.kernel, w, small.x, start={"t": 0.0, "y": np.zeros(2)}, bounds=bounds, **options)
    assert none.energy.shape == (2, 0, 3) and none.minima.energy.shape == (2, 0, 3, 2)
    assert none.trace.variables["y"].shape == (2, 0, 3, 1, 2)
    assert "0 x 3 members" in str(none)


# ------------------------------------------------------------------------------------------- in words


def landscape(family):
    """Minima, saddles, slopes without end and poles, by a number that members differ in."""
    a = sp.IndexedBase("a", shape=(n,))[m] if family else sp.Symbol("a", real=True)
    u = sp.Symbol("u", real=True)
    formula = sp.Piecewise(
        ((t - x[0]) ** 2 + u**2, a < 1),
        (10 * sp.Abs(t) - 3 * t**2 + u**2, a < 2),
        (-sp.exp(t**2) + u**2, a < 3),
        (sp.log(t - x[1]) + u**2, a < 4),
        (100 * (u - t**2) ** 2 + (1 - t) ** 2, True),
    )
    roles = {"variables": [t, u], "data": [x, a.base if family else a], "over": [m] if family else []}
    return wb.Energy(formula, **roles, name="landscape")


STATUSES = [Status.CONVERGED, Status.SADDLE, Status.UNBOUNDED, Status.NOT_FINITE, Status.ITERATION_LIMIT]


@pytest.fixture(scope="module")
def landscapes():
    kinds, data = np.arange(5) + 0.5, np.array([[1.0, 5.0], [2.0, 7.0]])
    start = {"t": np.array([0.1, 0.0, 1.0, 2.0, -12.0]), "u": np.array([0.1, 0.0, 1.0, 2.0, 10.0])}
    family, alone = wb.compile(landscape(True)), wb.compile(landscape(False))
    ours = wb.minimise(family, None, {"x": data, "a": kinds}, start=start, max_iterations=30)
    rows = {"x": np.repeat(data, 5, axis=0), "a": np.tile(kinds, 2)}
    start = {name: np.tile(values, 2) for name, values in start.items()}
    return ours, wb.minimise(alone, None, rows, start=start, max_iterations=30)


@pytest.mark.parametrize("instance", [0, 1])
@pytest.mark.parametrize("member", range(5), ids=lambda k: STATUSES[k].name)
def test_members_are_explained_as_they_are_without_a_family(landscapes, instance, member):
    ours, theirs = landscapes
    report, alone = ours.explain((instance, member)), theirs.explain(5 * instance + member)
    assert report.status is alone.status is STATUSES[member]
    assert (report.instance, report.member) == (instance, {"m": member})
    assert str(report).startswith(f"energy 'landscape', instance {instance}, member m = {member}: {report.status.name}")
    assert report.advice == alone.advice and report.numbers == pytest.approx(alone.numbers, nan_ok=True)
    assert report.finding == alone.finding
    if alone.not_finite is not None:
        assert report.not_finite.member == {"m": member}
        assert report.not_finite.inputs == alone.not_finite.inputs
        assert f"x[1] = {[5, 7][instance]}" in str(report)


def test_the_first_member_that_failed_is_explained_unless_one_is_asked_for(landscapes):
    ours, _ = landscapes
    assert ours.failed[0].tolist() == [0, 1]
    assert str(ours.explain()) == str(ours.explain((0, 1))) == str(ours.explain(ours.failed[0]))
    with pytest.raises(wb.NumericalError, match=r"ended as UNBOUNDED; solution.explain\(\(0, 2\)\) says why"):
        ours.raise_if_failed(Status.UNBOUNDED)


def test_a_summary_says_what_became_of_the_members(landscapes):
    text = str(landscapes[0])
    assert text.startswith("energy 'landscape': 2 x 5 members, 2 unknowns each, by trust-region")
    assert "2 CONVERGED, 2 ITERATION_LIMIT, 2 NOT_FINITE, 2 UNBOUNDED, 2 SADDLE" in text
    assert "failed: (0, 1) SADDLE, (0, 2) UNBOUNDED, (0, 3) NOT_FINITE, (0, 4) ITERATION_LIMIT, ... (8 in" in text
    assert "solution.explain((0, 1)) says why and what to do" in text


def test_members_of_one_instance_are_told_by_the_indices_alone(landscapes):
    kinds = np.arange(5) + 0.5
    kernel = landscapes[0].kernel
    solution = wb.minimise(kernel, None, {"x": [1.0, 5.0], "a": kinds}, start={"t": 0.0, "u": 0.0})
    report = solution.explain(3)
    assert (report.instance, report.member) == (None, {"m": 3})
    assert str(report) == str(solution.explain((3,)))


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (3, r"a member is told by 2 integers, its place in solution.status of shape \(2, 5\) \(got 3\)"),
        ((1, 2, 3), r"told by 2 integers, .* \(got \(1, 2, 3\)\)"),
        ((1, 2.0), r"told by 2 integers"),
        ("first", r"told by 2 integers"),
        ((0, 5), r"no member \(0, 5\); solution.status has the shape \(2, 5\), numbered from 0"),
        ((0, -1), r"no member \(0, -1\)"),
    ],
)
def test_members_that_are_not_there_are_refused(landscapes, member, message):
    with pytest.raises((wb.InputError, wb.InputTypeError), match=message):
        landscapes[0].explain(member)


@pytest.mark.parametrize("unknowns", [1, 2, 3])
def test_paths_of_members_are_drawn(unknowns):
    pytest.importorskip("matplotlib").use("Agg")
    a, u = sp.IndexedBase("a", shape=(n,)), sp.IndexedBase("u", shape=(unknowns,))
    formula = sum((u[d] - (d + 1) * a[m] * x[0]) ** 4 for d in range(unknowns))
    kernel = wb.compile(wb.Energy(formula, variables=[u], weights=[a], data=[x], over=[m]), backend="reference")
    start = {"u": np.zeros(unknowns)}
    solution = wb.minimise(kernel, {"a": [1.0, 2.0]}, {"x": [[1.0], [3.0]]}, start=start, max_iterations=5)
    axes = wb.plot_path(solution, (1, 1))
    assert axes.get_title() == "energy, member (1, 1): ITERATION_LIMIT, 5 steps"
    if unknowns == 1:
        along, energies = axes.lines[0].get_data()
        np.testing.assert_allclose(energies, (along - 6.0) ** 4, rtol=1e-9)
