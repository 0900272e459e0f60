"""Minimisers that people install: optimistix, jaxopt, CasADi with Ipopt, and SciPy, on the energies of peers_jax.py.

Every way starts from the same candidates or starts as ours and is asked for gradients of 1e-8. Those of JAX are
compiled and run over the whole batch by vmap; Ipopt and SciPy take one instance after the other, of which the first
few are timed. A library that is not installed is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
GTOL, MOST = 1e-8, 500
FEW = 20
"""Instances that a solver of one at a time is given."""


class Way(NamedTuple):
    """How to minimise: `call` gives minimisers of the first `size` instances, (size, m)."""

    name: str
    size: int
    call: Callable[[], Floats]


def ways(work: Any, kernel: Any) -> Iterator[Way]:
    """All that is installed for a workload."""
    if find_spec("jax"):
        from peers_jax import peer_of

        peer = peer_of(work)
        if find_spec("optimistix"):
            yield from _batched(work, peer, "optimistix", _optimistix)
        if find_spec("jaxopt"):
            yield from _batched(work, peer, "jaxopt", _jaxopt)
    if find_spec("casadi") and work.name in ("W1", "W2", "W3"):
        yield _ipopt(work, kernel)
    yield from _scipy(work, kernel)


# ---------------------------------------------------------------------------------------------- of JAX

One = Callable[[Any, Any, Any], Any]  # the minimiser from a start, weights and data of one instance


def _batched(work: Any, peer: Any, library: str, solvers: Callable[[Any, bool], dict[str, One]]) -> Iterator[Way]:
    import jax

    image = work.name == "W4"

    def by_vmap(one: One, w: Any, x: Any) -> Any:
        return jax.vmap(one, (0, None, peer.axes))(peer.seeds(w, x), w, x)

    def by_map(one: One, w: Any, x: Any) -> Any:
        shared = {name: array for name, array in x.items() if peer.axes[name] is None}
        own = {name: array for name, array in x.items() if peer.axes[name] == 0}
        return jax.lax.map(lambda a: one(a[0], w, {**shared, **a[1]}), (peer.seeds(w, x), own))

    def by_map_of_images(one: One, w: Any, z: Any) -> Any:
        return jax.lax.map(lambda z: one(z, w, z).ravel(), z)

    for name, one in solvers(peer.energy, image).items():
        for kind in (by_map_of_images,) if image else (by_vmap, by_map):
            call, data = jax.jit(partial(kind, one)), peer.z if image else peer.x
            run = partial(lambda call, data: np.asarray(jax.block_until_ready(call(peer.w, data))), call, data)
            yield Way(f"{library} {name}, {kind.__name__.removeprefix('by_')}", work.size, run)


def _optimistix(energy: Any, image: bool) -> dict[str, One]:
    import jax
    import optimistix as optx

    def descend(solver: Any, y: Any, w: Any, x: Any) -> Any:
        def fun(y: Any, args: Any) -> Any:
            return energy(y, *args)

        return optx.minimise(fun, solver, y, (w, x), max_steps=MOST, throw=False).value

    def root(y: Any, w: Any, x: Any) -> Any:
        def gradient(y: Any, args: Any) -> Any:
            return jax.grad(energy)(y, *args)

        solver = optx.Newton(rtol=GTOL, atol=GTOL)
        return optx.root_find(gradient, solver, y, (w, x), max_steps=MOST, throw=False).value

    tolerances = {"rtol": GTOL, "atol": GTOL}
    if image:
        return {"NonlinearCG": partial(descend, optx.NonlinearCG(**tolerances))}
    found: dict[str, One] = {"BFGS": partial(descend, optx.BFGS(**tolerances)), "Newton": root}
    if hasattr(optx, "LBFGS"):
        found["LBFGS"] = partial(descend, optx.LBFGS(**tolerances))
    return found


def _jaxopt(energy: Any, image: bool) -> dict[str, One]:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is no longer developed, and says so
        import jaxopt

    def descend(kind: Any, y: Any, w: Any, x: Any) -> Any:
        solver = kind(fun=energy, tol=GTOL, maxiter=MOST)
        return solver.run(y, w, x).params

    kinds = {"LBFGS": jaxopt.LBFGS} if image else {"BFGS": jaxopt.BFGS, "LBFGS": jaxopt.LBFGS}
    return {name: partial(descend, kind) for name, kind in kinds.items()}


# ---------------------------------------------------------------------------------------------- one at a time


def _starts(work: Any, kernel: Any) -> Floats:
    """The same starts as ours, (FEW, m); candidates are ranked by our kernel, which is not timed."""
    import wiberg as wb

    data = {n: a[:FEW] if a.ndim and len(a) == work.size else a for n, a in work.data.items()}
    start = None if work.start is None else {n: a[:FEW] for n, a in work.start.items()}
    (found,) = wb.minimise(kernel, work.weights, data, start=start, max_iterations=0).variables.values()
    return np.ascontiguousarray(found.reshape(min(FEW, work.size), -1))


def _scipy(work: Any, kernel: Any) -> Iterator[Way]:
    from scipy.optimize import minimize

    starts = _starts(work, kernel)
    (name,) = work.point
    shape = np.shape(work.point[name])[1:]

    def functions(instance: int) -> list[Callable[[Floats], Any]]:
        data = {n: a[instance] if a.ndim and len(a) == work.size else a for n, a in work.data.items()}
        return [
            partial(lambda call, y: call({name: y.reshape(shape)}, work.weights, data), call)
            for call in (kernel.value, kernel.gradient, kernel.hessian)
        ]

    each = [functions(instance) for instance in range(len(starts))]

    def run(method: str, second: bool) -> Floats:
        found = []
        for start, (value, gradient, hessian) in zip(starts, each, strict=True):
            more = {"hess": hessian} if second else {}
            found.append(minimize(value, start, jac=gradient, method=method, options={"gtol": GTOL}, **more).x)
        return np.array(found)

    if work.name == "W4":
        yield Way("scipy L-BFGS-B", len(starts), partial(run, "L-BFGS-B", False))
        return
    yield Way("scipy trust-exact", len(starts), partial(run, "trust-exact", True))
    yield Way("scipy BFGS", len(starts), partial(run, "BFGS", False))


def _ipopt(work: Any, kernel: Any) -> Way:
    """Ipopt with CasADi's derivatives; what an instance has of its own are parameters."""
    import casadi as ca
    from peers_casadi import ENERGIES, inputs_of

    starts = _starts(work, kernel)
    weights, data = (list(inputs_of(work, role)) for role in ("weights", "data"))
    own = {item.name: ca.SX.sym(item.name, item.size) for item in data if item.step}
    fixed = {item.name: ca.DM(item.numbers) for item in (*weights, *data) if not item.step}
    y, everything = ca.SX.sym("y", starts.shape[1]), fixed | own
    w, x = ({item.name: everything[item.name] for item in role} for role in (weights, data))
    problem = {"x": y, "p": ca.vertcat(*own.values()), "f": ENERGIES[work.name](y, w, x)}
    quiet = {"ipopt.print_level": 0, "print_time": 0, "ipopt.tol": GTOL, "ipopt.sb": "yes"}
    solver = ca.nlpsol("solver", "ipopt", problem, quiet)
    rows = [
        np.concatenate([item.numbers[k * item.size : (k + 1) * item.size] for item in data if item.step])
        for k in range(len(starts))
    ]

    def run() -> Floats:
        return np.array([np.array(solver(x0=s, p=r)["x"]).ravel() for s, r in zip(starts, rows, strict=True)])

    return Way("CasADi Ipopt", len(starts), run)
