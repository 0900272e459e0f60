"""The inverse Hessian that pairs of steps and changes of the gradient suggest, and which pairs are remembered.

B is what the update of Broyden, Fletcher, Goldfarb and Shanno makes of a multiple of 1 (Nocedal 1980, Mathematics of
Computation 35; Nocedal and Wright, algorithm 7.4). lbfgs.py steps along -B g. Conjugate gradients on products with the
Hessian are preconditioned by B, from the directions p and products Hp of the solve before (Morales and Nocedal 2000,
SIAM Journal on Optimization 10): the Hessian has not changed much since, and not one product more is asked for.
"""

from __future__ import annotations

from ...compiler.machine_code.calling import shifted
from ...compiler.machine_code.signature import DoublePointer
from . import vectors

PAIRS = 10
"""Pairs that are remembered."""


def apply_inverse(
    steps: DoublePointer,
    changes: DoublePointer,
    products: DoublePointer,
    weights: DoublePointer,
    newest: int,
    count: int,
    n: int,
    q: DoublePointer,
) -> None:
    """q <- B q from the `count` pairs that end with `newest`, each in its row of PAIRS that are used in turn.

    `products` are those of the step and the change of each pair; `weights` is working memory.
    """
    for age in range(count):
        row = (newest - age + PAIRS) % PAIRS
        weights[row] = vectors.dot(shifted(steps, row * n), q, n) / products[row]
        vectors.add_scaled(-weights[row], shifted(changes, row * n), q, n)
    if count > 0:
        change = shifted(changes, newest * n)
        vectors.scale(products[newest] / vectors.dot(change, change, n), q, n)
    for age in range(count - 1, -1, -1):
        row = (newest - age + PAIRS) % PAIRS
        missing = weights[row] - vectors.dot(shifted(changes, row * n), q, n) / products[row]
        vectors.add_scaled(missing, shifted(steps, row * n), q, n)


# ---------------------------------------------------------------------------------------------- of the solve before

# The memory of a preconditioner: steps, changes and products of the pairs in use, oldest first, a product of 0 behind
# the last; the same for those of the solve that goes on, in rows that are used in turn; weights.


def pairs_size(n: int) -> int:
    """How many numbers the memory of a preconditioner has."""
    return 4 * PAIRS * n + 3 * PAIRS


def forget_pairs(pairs: DoublePointer, n: int) -> None:
    """From now on, B is 1."""
    pairs[2 * PAIRS * n] = 0.0


def count_pairs(pairs: DoublePointer, n: int) -> int:
    """How many pairs are in use."""
    products = shifted(pairs, 2 * PAIRS * n)
    count = 0
    for row in range(PAIRS):
        if count == row and products[row] > 0.0:
            count += 1
    return count


def keep_pair(pairs: DoublePointer, number: int, p: DoublePointer, q: DoublePointer, product: float, n: int) -> None:
    """Remember the pair of that number of the solve that goes on: q = Hp, product = p'q > 0."""
    row, latest = number % PAIRS, shifted(pairs, 2 * PAIRS * n + PAIRS)
    vectors.copy(p, shifted(latest, row * n), n)
    vectors.copy(q, shifted(latest, (PAIRS + row) * n), n)
    latest[2 * PAIRS * n + row] = product


def use_pairs(pairs: DoublePointer, number: int, n: int) -> None:
    """From now on, B is made of the last pairs of a solve that has kept so many; as before where there are none."""
    latest, count = shifted(pairs, 2 * PAIRS * n + PAIRS), min(number, PAIRS)
    for place in range(count):
        row = (number - count + place) % PAIRS
        vectors.copy(shifted(latest, row * n), shifted(pairs, place * n), n)
        vectors.copy(shifted(latest, (PAIRS + row) * n), shifted(pairs, (PAIRS + place) * n), n)
        pairs[2 * PAIRS * n + place] = latest[2 * PAIRS * n + row]
    if 0 < count < PAIRS:
        pairs[2 * PAIRS * n + count] = 0.0


def precondition_by_pairs(pairs: DoublePointer, count: int, n: int, r: DoublePointer, z: DoublePointer) -> float:
    """z <- B r; returns r'z."""
    changes, products = shifted(pairs, PAIRS * n), shifted(pairs, 2 * PAIRS * n)
    vectors.copy(r, z, n)
    apply_inverse(pairs, changes, products, shifted(pairs, 4 * PAIRS * n + 2 * PAIRS), count - 1, count, n, z)
    return vectors.dot(r, z, n)
