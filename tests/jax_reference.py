"""The table of energies by JAX, a second outside reference: value, gradient, Hessian and cross-derivative.

    python tests/jax_reference.py OUT.npz [NAME ...]

The SymPy expression is evaluated in jax.numpy directly, a Sum as an axis that is summed; nothing of the compiler is
used. It runs in a process of its own, because a process that has loaded JAX should not fork.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special
import numpy as np
import sympy as sp
from energies_table import TABLE, draw, extent_sizes
from sympy.codegen.cfunctions import expm1, log1p
from wiberg.energies.extrema import Maximum, Minimum

SIZES = 3

FUNCTIONS = {
    sp.exp: jnp.exp, sp.log: jnp.log, log1p: jnp.log1p, expm1: jnp.expm1, sp.sin: jnp.sin, sp.cos: jnp.cos,
    sp.tan: jnp.tan, sp.asin: jnp.arcsin, sp.acos: jnp.arccos, sp.atan: jnp.arctan, sp.sinh: jnp.sinh,
    sp.cosh: jnp.cosh, sp.tanh: jnp.tanh, sp.asinh: jnp.arcsinh, sp.acosh: jnp.arccosh, sp.atanh: jnp.arctanh,
    sp.atan2: jnp.arctan2, sp.erf: jax.scipy.special.erf, sp.erfc: jax.scipy.special.erfc,
    sp.gamma: lambda x: jnp.exp(jax.scipy.special.gammaln(x)), sp.loggamma: jax.scipy.special.gammaln,
    sp.Heaviside: lambda x, at_zero: jnp.where(x == 0, at_zero, jnp.where(x > 0, 1.0, 0.0)),
    sp.sinc: lambda x: jnp.sinc(x / np.pi), sp.KroneckerDelta: lambda a, b: jnp.where(a == b, 1.0, 0.0),
    sp.Abs: jnp.abs, sp.sign: jnp.sign, sp.floor: jnp.floor, sp.ceiling: jnp.ceil,
}  # fmt: skip
REDUCTIONS = {
    sp.Sum: (jnp.sum, 0.0), sp.Product: (jnp.prod, 1.0), Minimum: (jnp.min, np.inf), Maximum: (jnp.max, -np.inf),
}  # fmt: skip
EXTREMES = (sp.Max, sp.Min)
COMPARISONS = {
    sp.StrictLessThan: jnp.less, sp.LessThan: jnp.less_equal, sp.StrictGreaterThan: jnp.greater,
    sp.GreaterThan: jnp.greater_equal, sp.Equality: jnp.equal, sp.Unequality: jnp.not_equal,
}  # fmt: skip


class NoTranslation(Exception):
    """Something in an energy that this file does not know."""


class Evaluation:
    """An energy at one point; a scope gives each bound index as an integer array with an axis of its own."""

    def __init__(self, energy: Any, arrays: Mapping[str, Any], extents: Mapping[Any, int]) -> None:
        self.arrays = arrays
        self.extents = dict(extents)
        self.lets = {str(k.base.name if isinstance(k, sp.Indexed) else k.name): (k, v) for k, v in energy.where.items()}
        self.value = self.number(energy.expression, {})

    def number(self, node: Any, scope: Mapping[Any, Any]) -> Any:
        if node in scope:
            return scope[node]
        if node in self.extents:
            return self.extents[node]
        if node.is_Integer:
            return int(node)
        if node.is_number and not node.has(sp.Sum):
            return float(node)
        if isinstance(node, sp.Indexed):
            where = tuple(self.number(i, scope) for i in node.indices)
            return self.entry(str(node.base.name), where)
        if isinstance(node, sp.Symbol):
            return self.entry(node.name, ())
        if type(node) in REDUCTIONS:
            return self.reduced(node, scope)
        if isinstance(node, sp.Piecewise):
            return self.piecewise(node, scope)
        if not (node.is_Add or node.is_Mul or node.is_Pow or type(node) in FUNCTIONS or isinstance(node, EXTREMES)):
            raise NoTranslation(type(node).__name__)
        parts = [self.number(a, scope) for a in node.args]
        if node.is_Add:
            return sum(parts[1:], parts[0])
        if node.is_Mul:
            result = parts[0]
            for part in parts[1:]:
                result = result * part
            return result
        if node.is_Pow:
            return parts[0] ** parts[1]
        if isinstance(node, EXTREMES):
            extreme = jnp.maximum if isinstance(node, sp.Max) else jnp.minimum
            result = parts[0]
            for part in parts[1:]:
                result = extreme(result, part)
            return result
        return FUNCTIONS[type(node)](*parts)

    def entry(self, name: str, where: tuple[Any, ...]) -> Any:
        if name not in self.lets:
            return self.arrays[name][where] if where else self.arrays[name]
        key, formula = self.lets[name]
        return self.number(formula, dict(zip(key.indices, where, strict=True)) if where else {})

    def reduced(self, node: Any, scope: Mapping[Any, Any]) -> Any:
        """Each index becomes a leading axis; where its ends depend on others, the longest one with a mask."""
        function, neutral = REDUCTIONS[type(node)]
        inner, masks = dict(scope), []
        for symbol, low, high in reversed(node.limits):
            first, last = (np.asarray(self.number(end, inner)) for end in (low, high))
            values = np.arange(first.min(), last.max() + 1)
            rank = max((np.ndim(v) for v in inner.values()), default=0)
            inner[symbol] = values.reshape(-1, *(1,) * rank)
            if first.ndim or last.ndim:
                masks.append((inner[symbol] >= first) & (inner[symbol] <= last))
        body = self.number(node.function, inner)
        before = max((np.ndim(v) for v in scope.values()), default=0)
        shape = np.broadcast_shapes(np.shape(body), *(np.shape(v) for v in inner.values()))
        body = jnp.broadcast_to(body, shape)
        for mask in masks:
            body = jnp.where(mask, body, neutral)
        return function(body, axis=tuple(range(len(shape) - before)))

    def piecewise(self, node: Any, scope: Mapping[Any, Any]) -> Any:
        *branches, (result, _) = node.args
        result = self.number(result, scope)
        for branch, condition in reversed(branches):
            result = jnp.where(self.condition(condition, scope), self.number(branch, scope), result)
        return result

    def condition(self, node: Any, scope: Mapping[Any, Any]) -> Any:
        if node in (sp.true, sp.false):
            return bool(node)
        if isinstance(node, sp.Not):
            return jnp.logical_not(self.condition(node.args[0], scope))
        if isinstance(node, (sp.And, sp.Or)):
            kind = jnp.logical_and if isinstance(node, sp.And) else jnp.logical_or
            result = self.condition(node.args[0], scope)
            for part in node.args[1:]:
                result = kind(result, self.condition(part, scope))
            return result
        return COMPARISONS[type(node)](*(self.number(a, scope) for a in node.args))


def derivatives(energy: Any) -> dict[str, Any]:
    """Value, gradient, Hessian and cross-derivative at a drawn point, all variables and weights flattened."""
    y, w, x = draw(energy, SIZES)
    extents = extent_sizes(energy, SIZES)

    def flat(part: Mapping[str, Any]) -> Any:
        return jnp.concatenate([jnp.ravel(a) for a in part.values()]) if part else jnp.zeros(0)

    def shaped(numbers: Any, part: Mapping[str, Any]) -> dict[str, Any]:
        result, begin = {}, 0
        for name, array in part.items():
            result[name] = numbers[begin : begin + array.size].reshape(array.shape)
            begin += array.size
        return result

    def value(variables: Any, weights: Any) -> Any:
        return jnp.asarray(
            Evaluation(energy, {**shaped(variables, y), **shaped(weights, w), **x}, extents).value, float
        )

    def everything(variables: Any, weights: Any) -> dict[str, Any]:
        gradient = jax.grad(value)
        result = {"value": value(variables, weights), "gradient": gradient(variables, weights)}
        result["hessian"], result["cross"] = jax.jacfwd(gradient, argnums=(0, 1))(variables, weights)
        return result

    return {kind: np.asarray(numbers) for kind, numbers in jax.jit(everything)(flat(y), flat(w)).items()}


def main(path: str, names: list[str]) -> None:
    jax.config.update("jax_enable_x64", True)
    found = {}
    for name in names or TABLE:
        try:
            found |= {f"{name} {kind}": numbers for kind, numbers in derivatives(TABLE[name]()).items()}
        except NoTranslation as unknown:
            found[f"{name} unknown"] = np.array(str(unknown))
    np.savez(path, **found)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
