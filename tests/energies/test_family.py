"""Declaring families: `over=`, what is refused, and what a family prints as."""

import copy
import pickle

import pytest
import sympy as sp
import wiberg as wb

n, k = sp.symbols("n k", integer=True, positive=True)
m, i, j = sp.Idx("m", n), sp.Idx("i", 4), sp.Idx("j", k)
t, a = sp.Symbol("t", real=True), sp.IndexedBase("a", shape=(n,))
x, y = sp.IndexedBase("x", shape=(n, k)), sp.IndexedBase("y", shape=(k,))
FORMULA = a[m] * sp.Sum((x[m, j] - t * sp.cos(i)) ** 2, j)


def family(formula=FORMULA, **changes):
    return wb.Energy(formula, **{"variables": [t], "weights": [a], "data": [x], "over": [m, i], **changes})


def test_a_family_keeps_its_indices_and_their_extents():
    assert family().over == (m, i)
    assert family().family == (n, 4)
    assert family(over=[i, m]).family == (4, n)


def test_an_energy_that_is_no_family_has_no_indices():
    plain = wb.Energy(t**2, variables=[t])
    assert (plain.over, plain.family) == ((), ())


def test_the_order_of_the_indices_is_part_of_the_key():
    assert family().formula_key != family(over=[i, m]).formula_key
    assert family() == family()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_copies_and_pickles_are_equal(copied):
    assert copied(family()) == family()
    assert copied(family()).over == (m, i)


def test_a_family_shows_its_indices_with_their_extents():
    assert str(family()).splitlines()[-2:] == ["  over       m (n)", "             i (4)"]
    assert r"\text{over} & m \quad (n)" in family()._repr_latex_()


def test_indices_of_matrices_are_indices_of_the_family():
    A, z = sp.MatrixSymbol("A", k, k), sp.MatrixSymbol("z", k, 1)
    energy = wb.Energy((z.T * A * z)[0, 0] * a[m], variables=[z], weights=[a], data=[A], over=[m])
    assert energy.family == (n,)


def test_an_intermediate_may_have_an_index_of_the_same_name_for_all_of_its_values():
    u = sp.IndexedBase("u", shape=(n,))
    energy = family(u[m] * t**2 * sp.cos(i), where={u[m]: a[m] * sp.Sum(x[m, j], j)})
    assert energy.over == (m, i)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"over": m}, wb.WibergError, r"over= must be a list of sp.Idx; got m alone; write over=\[m\]"),
        ({"over": "m"}, TypeError, "over= must be a list of sp.Idx, in the order of the axes; got 'm' of type str"),
        ({"over": {m, i}}, TypeError, "in the order of the axes"),
        ({"over": 3}, TypeError, "over= must be a list of sp.Idx"),
        ({"over": [n]}, TypeError, 'got n of type Symbol; write sp.Idx'),
        ({"over": [m, i, m]}, ValueError, "over= has index m twice"),
        ({"over": [m, i, sp.Idx("l")]}, ValueError, "index l has no extent"),
        ({"over": [m, sp.Idx("i", (1, 4))]}, ValueError, r"index i in over= runs over 1..4; .* start at 0"),
        ({"over": [m, sp.Idx("i", (0, m))]}, ValueError, "the range of index i in over= depends on index m"),
        ({"over": [m, sp.Idx("i", sp.Symbol("q", integer=True))]}, ValueError, "no array has the extent q"),
        ({"over": [m, i, sp.Idx("l", 3)]}, ValueError, "index l of over= does not appear free in the expression"),
        ({"over": [m, i, j]}, ValueError, r"index j is bound in Sum.* and is one of over="),
        ({"over": [m]}, ValueError, "index i .*is not bound by a Sum"),
        ({"candidates": {t: x[j, i]}}, ValueError, "index j runs over k but axis 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(changes, kind, message):
    with pytest.raises(kind, match=message) as caught:
        family(**changes)
    assert isinstance(caught.value, wb.WibergError)
    assert str(caught.value).startswith("energy 'energy': ")


def test_an_index_that_only_an_unused_intermediate_has_is_not_used():
    u = sp.Symbol("u")
    with pytest.raises(wb.DeclarationError, match="index i of over= does not appear free"):
        family(a[m] * sp.Sum((x[m, j] - t) ** 2, j), where={u: sp.cos(i)})


def test_an_index_that_an_intermediate_binds_is_not_used_by_it():
    u = sp.IndexedBase("u", shape=(4,))
    with pytest.raises(wb.DeclarationError, match="index i of over= does not appear free"):
        family(a[m] * sp.Sum((x[m, j] - t) ** 2, j) + u[0], where={u[i]: sp.cos(i)})


def test_variables_with_the_axes_of_the_family_are_refused():
    z = sp.IndexedBase("z", shape=(n, k))
    with pytest.raises(
        wb.DeclarationError, match=r"variable z \(n, k\) is read at index m of over= on axis 0"
    ) as error:
        family(sp.Sum((x[m, j] - z[m, j] * sp.cos(i)) ** 2, j) * a[m], variables=[z])
    assert "declare it with shape (k,), and read it without m" in str(error.value)


def test_variables_that_are_read_at_other_places_too_may_be_read_at_an_index():
    z, every = sp.IndexedBase("z", shape=(n,)), sp.Idx("every", n)
    assert family(sp.Sum(z[every] ** 2, every) + a[m] * z[m] * sp.cos(i), variables=[z]).over == (m, i)


def test_candidates_may_use_the_indices_of_the_family():
    assert family(candidates={t: a[m] * x[m, j]}).candidate_index == j


def test_candidates_do_not_count_entries_by_an_index_of_the_family():
    z, d = sp.IndexedBase("z", shape=(4,)), sp.Idx("d", 4)
    formula = sp.Sum((z[d] - a[m] * sp.cos(i)) ** 2, d)
    with pytest.raises(wb.DeclarationError, match=r"candidates= has z\[i\], and i is an index of over="):
        family(formula, variables=[z], candidates={z[i]: a[m]})
