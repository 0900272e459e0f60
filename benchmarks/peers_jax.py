"""The peer: JAX as an expert writes it. float64, everything compiled, inputs already on the device.

Energies of one instance are plain functions E(y, w, x); vmap makes batches of them. Minimisation is Newton's method in
a while_loop: H is shifted until it is positive definite and the step halved until E falls. Batches are minimised by
vmap (all instances step until the last one is done) or by lax.map (one after the other); whichever is faster counts.
dl/dw is the adjoint damped derivative: one linear solve and one reverse sweep over a directional derivative.

A step of training is one jitted function: minimise, the mean loss, its derivative through the minima by a custom_vjp
that solves with the last Hessian of the minimisation, and SGD with momentum, which overwrites its buffers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray
from workloads import Workload

jax.config.update("jax_enable_x64", True)

Array = jax.Array
Energy = Callable[[Array, Any, Any], Array]
DAMPING, GTOL, MAX_STEPS = 0.1, 1e-8, 100


# ---------------------------------------------------------------------------------------------- energies


def ransac(y: Array, w: Any, x: Any) -> Array:
    return -jnp.exp(-(((x["x"] - y[0]) / w["sigma"]) ** 2)).sum()


def fusion(y: Array, w: Any, x: Any) -> Array:
    distance2 = ((w["s"] * x["c"] - y) ** 2).sum(axis=1)
    return -jnp.exp(w["alpha"] + w["beta"] * x["t"] - distance2 * jnp.exp(-2 * w["log_sigma"])).sum()


def pose(a: Array, w: Any, x: Any) -> Array:
    shape = jnp.tensordot(a, w["B"], 1)
    r2 = ((x["X"] - jnp.einsum("ced,jd->cje", w["P"], shape)) ** 2).sum(axis=-1)
    delta2 = w["delta"] ** 2
    fit = (w["omega"] ** 2 * delta2 * (jnp.sqrt(1 + r2 / delta2) - 1)).sum()
    return fit + ((w["sigma"] * (a - x["m"])) ** 2).sum() / 2


ENERGIES: dict[str, Energy] = {"W1": ransac, "W2": fusion, "W3": pose}


def squared_distance(y: Array, w: Any, target: Array) -> Array:
    return ((y - target) ** 2).sum()


def body_distance(a: Array, w: Any, target: Array) -> Array:
    return ((jnp.tensordot(a, w["B"], 1) - target) ** 2).sum()


LOSSES: dict[str, Energy] = {"W1": squared_distance, "W2": squared_distance, "W3": body_distance}


# ---------------------------------------------------------------------------------------------- one instance


def evaluate(energy: Energy, y: Array, w: Any, x: Any) -> tuple[Array, Array, Array]:
    value, gradient = jax.value_and_grad(energy)(y, w, x)
    return value, gradient, jax.hessian(energy)(y, w, x)


def solve(matrix: Array, b: Array) -> Array:
    """In closed form for 1 and 2 unknowns, else by Cholesky."""
    if len(b) == 1:
        return b / matrix[0]
    if len(b) == 2:
        (p, q), (_, r) = matrix
        return jnp.array([r * b[0] - q * b[1], p * b[1] - q * b[0]]) / (p * r - q * q)
    return jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(matrix), b)


def lifted(hessian: Array) -> Array:
    """H with enough on the diagonal to be positive definite (the energy of more than 2 unknowns here is convex)."""
    n = len(hessian)
    if n > 2:
        return hessian
    if n == 1:
        lowest = hessian[0, 0]
    else:
        half = (hessian[0, 0] - hessian[1, 1]) / 2
        lowest = (hessian[0, 0] + hessian[1, 1]) / 2 - jnp.hypot(half, hessian[0, 1])
    return hessian + jnp.where(lowest > 1e-6, 0.0, 1e-3 - 2 * lowest) * jnp.eye(n)


def minimise_one(energy: Energy, start: Array, w: Any, x: Any) -> tuple[Array, Array, Array]:
    """The minimiser, the gradient there, and the number of steps."""
    y, gradient, _, steps = minimum_of_one(energy, start, w, x)
    return y, gradient, steps


def minimum_of_one(energy: Energy, start: Array, w: Any, x: Any) -> tuple[Array, Array, Array, Array]:
    """The same, with the Hessian at the minimiser before the number of steps."""

    def unfinished(state: Any) -> Array:
        _, (_, gradient, _), steps = state
        return (jnp.abs(gradient).max() > GTOL) & (steps < MAX_STEPS)

    def step(state: Any) -> Any:
        y, (value, gradient, hessian), steps = state
        direction = -solve(lifted(hessian), gradient)
        slope = gradient @ direction
        noise = 1e-13 * jnp.abs(value)

        def too_long(size: Array) -> Array:
            return (energy(y + size * direction, w, x) > value + 1e-4 * size * slope + noise) & (size > 1e-10)

        y = y + lax.while_loop(too_long, lambda size: size / 2, 1.0) * direction
        return y, evaluate(energy, y, w, x), steps + 1

    y, (_, gradient, hessian), steps = lax.while_loop(unfinished, step, (start, evaluate(energy, start, w, x), 0))
    return y, gradient, hessian, steps


# ---------------------------------------------------------------------------------------------- batches


class Peer:
    """Compiled functions of one workload; every method returns a call that waits for its result."""

    def __init__(self, work: Workload) -> None:
        self.work, self.energy = work, ENERGIES[work.name]
        self.w = jax.tree.map(jnp.asarray, work.weights)
        batched = {name: array.ndim > 0 and len(array) == work.size for name, array in work.data.items()}
        self.x = {name: jnp.asarray(array) for name, array in work.data.items()}
        self.axes = {name: 0 if batched[name] else None for name in self.x}

    def point(self) -> Array:
        (point,) = self.work.point.values()
        return jnp.asarray(point).reshape(self.work.size, -1)

    def _each(self, function: Callable[..., Any], rows: int = 1) -> Callable[..., Any]:
        """`function(*rows of an instance, w, x)` over the batch."""
        return jax.vmap(function, (0,) * rows + (None, self.axes))

    def value_gradient_hessian(self) -> Callable[[], Any]:
        call, point = jax.jit(self._each(partial(evaluate, self.energy))), self.point()
        return lambda: jax.block_until_ready(call(point, self.w, self.x))

    def seeds(self, w: Any, x: Any) -> Array:
        """Where to start, (B, m): the candidate of lowest energy, or the given start."""
        if self.work.start is not None:
            (start,) = self.work.start.values()
            return jnp.asarray(start)
        candidates = x["x"][:, :, None] if self.work.name == "W1" else w["s"] * x["c"]
        energies = self._each(jax.vmap(self.energy, (0, None, None)))(candidates, w, x)
        return jnp.take_along_axis(candidates, energies.argmin(axis=1)[:, None, None], axis=1)[:, 0]

    def minimise(self, devices: int = 1) -> dict[str, Callable[[], Any]]:
        """Ways to minimise the batch, each giving minimisers (B, m), gradients (B, m) and steps (B,)."""

        def by_vmap(w: Any, x: Any) -> Any:
            return self._each(partial(minimise_one, self.energy))(self.seeds(w, x), w, x)

        def by_map(start: Array, w: Any, x: Any) -> Any:
            shared = {name: array for name, array in x.items() if self.axes[name] is None}
            batched = {name: array for name, array in x.items() if self.axes[name] == 0}
            return lax.map(lambda a: minimise_one(self.energy, a[0], w, {**shared, **a[1]}), (start, batched))

        def in_turn(w: Any, x: Any) -> Any:
            return by_map(self.seeds(w, x), w, x)

        def on_devices(w: Any, x: Any) -> Any:
            from jax.sharding import Mesh, PartitionSpec

            rows, all_of = PartitionSpec("batch"), PartitionSpec()
            inputs = {name: rows if axis == 0 else all_of for name, axis in self.axes.items()}
            mesh = Mesh(np.array(jax.devices()[:devices]), ("batch",))
            share = jax.shard_map(by_map, mesh=mesh, in_specs=(rows, all_of, inputs), out_specs=rows, check_vma=False)
            return share(self.seeds(w, x), w, x)

        ways = {"vmap": jax.jit(by_vmap), "map": jax.jit(in_turn)}
        if devices > 1:
            ways[f"map on {devices} devices"] = jax.jit(on_devices)
        return {
            name: partial(lambda way: jax.block_until_ready(way(self.w, self.x)), way) for name, way in ways.items()
        }

    def implicit(self, y: NDArray[np.float64], slopes: NDArray[np.float64]) -> Callable[[], Any]:
        """dl/dw summed over the batch, a dict like the weights, at given minima and dl/dy, (B, m)."""

        def along(y: Array, direction: Array, w: Any, x: Any) -> Array:
            return jax.jvp(lambda y: self.energy(y, w, x), (y,), (direction,))[1]

        def gradient(y: Array, slopes: Array, w: Any, x: Any) -> Any:
            hessians = self._each(jax.hessian(self.energy))(y, w, x)
            directions = jax.vmap(solve)(hessians + DAMPING * jnp.eye(y.shape[1]), slopes)
            total = jax.grad(lambda w: self._each(along, rows=2)(y, directions, w, x).sum())(w)
            return jax.tree.map(jnp.negative, total)

        call, minima, down = jax.jit(gradient), jnp.asarray(y), jnp.asarray(slopes)
        return lambda: jax.block_until_ready(call(minima, down, self.w, self.x))

    def training(self, rate: float, momentum: float) -> dict[str, Callable[[int], Any]]:
        """Ways to take so many steps from where the call before ended; each gives the weights and the mean loss."""
        energy, loss = self.energy, LOSSES[self.work.name]
        target = jnp.asarray(self.work.target).reshape(self.work.size, *self.work.target.shape[1:] or (1,))

        def along(y: Array, direction: Array, w: Any, x: Any) -> Array:
            return jax.jvp(lambda y: energy(y, w, x), (y,), (direction,))[1]

        def implicit(each: Callable[..., Any]) -> Callable[[Array, Any, Any], Array]:
            """The minima (B, m), differentiable by the weights; `each` minimises all, and gives Hessians, too."""

            @jax.custom_vjp
            def minima(start: Array, w: Any, x: Any) -> Array:
                return each(start, w, x)[0]

            def forward(start: Array, w: Any, x: Any) -> Any:
                y, _, hessians, _ = each(start, w, x)
                return y, (y, hessians, w, x)

            def backward(kept: Any, slopes: Array) -> Any:
                y, hessians, w, x = kept
                directions = jax.vmap(solve)(hessians + DAMPING * jnp.eye(y.shape[1]), slopes)
                total = jax.grad(lambda w: self._each(along, rows=2)(y, directions, w, x).sum())(w)
                return None, jax.tree.map(jnp.negative, total), None

            minima.defvjp(forward, backward)
            return minima

        def by_map(start: Array, w: Any, x: Any) -> Any:
            shared = {name: array for name, array in x.items() if self.axes[name] is None}
            batched = {name: array for name, array in x.items() if self.axes[name] == 0}
            return lax.map(lambda a: minimum_of_one(energy, a[0], w, {**shared, **a[1]}), (start, batched))

        def way(each: Callable[..., Any]) -> Callable[[int], Any]:
            minima = implicit(each)

            def mean_loss(w: Any, x: Any, target: Array) -> Array:
                y = minima(lax.stop_gradient(self.seeds(w, x)), w, x)
                return jax.vmap(loss, (0, None, 0))(y, w, target).mean()

            @partial(jax.jit, donate_argnums=(0, 1))
            def step(w: Any, velocity: Any, x: Any, target: Array) -> Any:
                value, gradient = jax.value_and_grad(mean_loss)(w, x, target)
                velocity = jax.tree.map(lambda v, g: momentum * v + g, velocity, gradient)
                return jax.tree.map(lambda w, v: w - rate * v, w, velocity), velocity, value

            # copies of their own: donated buffers are gone after a step
            state = [jax.tree.map(lambda a: jnp.array(a, copy=True), self.w), jax.tree.map(jnp.zeros_like, self.w), 0.0]

            def steps(count: int) -> Any:
                for _ in range(count):
                    state[:] = step(state[0], state[1], self.x, target)
                return jax.block_until_ready((state[0], state[2]))

            return steps

        return {"vmap": way(self._each(partial(minimum_of_one, energy), rows=1)), "map": way(by_map)}


class ImagesPeer(Peer):
    """W4: the Hessian by products with five colours of pixels, Newton's steps and the damped solve by CG."""

    def __init__(self, work: Workload) -> None:
        self.work, self.shape = work, work.target.shape[1:]
        self.w = jax.tree.map(jnp.asarray, work.weights)
        self.z = jnp.asarray(work.data["z"])
        row, column = np.mgrid[tuple(slice(side) for side in self.shape)]
        self.colours = jnp.asarray(np.stack([(row + 2 * column) % 5 == k for k in range(5)]), float)

    @staticmethod
    def energy(y: Array, w: Any, z: Array) -> Array:
        softness = jnp.exp(2 * w["log_eps"])
        edges = sum(jnp.sqrt(jnp.diff(y, axis=axis) ** 2 + softness).sum() for axis in (0, 1))
        return ((y - z) ** 2).sum() / 2 + jnp.exp(w["log_lambda"]) * edges

    def product(self, y: Array, w: Any, z: Array, v: Array) -> Array:
        return jax.jvp(lambda y: jax.grad(self.energy)(y, w, z), (y,), (v,))[1]

    def value_gradient_hessian(self) -> Callable[[], Any]:
        def one(y: Array, z: Array) -> Any:
            products = jax.vmap(lambda colour: self.product(y, self.w, z, colour))(self.colours)
            return *jax.value_and_grad(self.energy)(y, self.w, z), products

        call, point = jax.jit(lambda y, z: lax.map(lambda a: one(*a), (y, z))), jnp.asarray(self.work.point["y"])
        return lambda: jax.block_until_ready(call(point, self.z))

    def minimise(self, devices: int = 1) -> dict[str, Callable[[], Any]]:
        def step(state: Any, z: Array) -> Any:
            y, value, gradient, steps = state
            tolerance = jnp.minimum(1e-2, jnp.sqrt(jnp.abs(gradient).max()))
            down = -conjugate_gradients(lambda v: self.product(y, self.w, z, v), gradient, tolerance)
            slope, noise = (gradient * down).sum(), 1e-13 * jnp.abs(value)

            def too_long(size: Array) -> Array:
                return self.energy(y + size * down, self.w, z) > value + 1e-4 * size * slope + noise

            y = y + lax.while_loop(too_long, lambda size: size / 2, 1.0) * down
            return y, *jax.value_and_grad(self.energy)(y, self.w, z), steps + 1

        def one(z: Array) -> Any:
            start = (z, *jax.value_and_grad(self.energy)(z, self.w, z), 0)
            y, _, gradient, steps = lax.while_loop(
                lambda s: (jnp.abs(s[2]).max() > GTOL) & (s[3] < MAX_STEPS), partial(step, z=z), start
            )
            return y.ravel(), gradient.ravel(), steps

        ways = {"map": jax.jit(lambda z: lax.map(one, z)), "vmap": jax.jit(jax.vmap(one))}
        return {name: partial(lambda way: jax.block_until_ready(way(self.z)), way) for name, way in ways.items()}

    def implicit(self, y: NDArray[np.float64], slopes: NDArray[np.float64]) -> Callable[[], Any]:
        def one(y: Array, slope: Array, z: Array) -> Any:
            v = conjugate_gradients(lambda v: self.product(y, self.w, z, v) + DAMPING * v, slope, 1e-12)
            return jax.grad(lambda w: jax.jvp(lambda y: self.energy(y, w, z), (y,), (v,))[1])(self.w)

        def total(y: Array, slopes: Array) -> Any:
            return jax.tree.map(lambda each: -each.sum(), lax.map(lambda a: one(*a), (y, slopes, self.z)))

        call = jax.jit(total)
        minima, down = (jnp.asarray(a.reshape(-1, *self.shape)) for a in (y, slopes))
        return lambda: jax.block_until_ready(call(minima, down))


def conjugate_gradients(product: Callable[[Array], Array], b: Array, tolerance: Any) -> Array:
    return jax.scipy.sparse.linalg.cg(product, b, tol=tolerance, maxiter=500)[0]


def peer_of(work: Workload) -> Peer:
    return ImagesPeer(work) if work.name == "W4" else Peer(work)
