"""What each kind of kernel computes: the passes from an energy to a scheduled program, in order.

lower              SymPy to the indexed program                      lower.py
stabilise          safe forms of exponentials and differences        stabilise.py
differentiate      the outputs of that kind are added                differentiate.py
divide             products of the other factors                     products.py
simplify           prune, merge, inline, factor                      simplify.py
share              what is added to several places, once             share.py
split              what the members of a family have in common       common.py
prepare, hoist     work is moved to where it is done less often      prepare.py
schedule           loop nests                                        schedule.py
emit               text                                              emit.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from ..energies.energy import Energy
from .calls.declaration import ADJOINTS, CHOSEN, COMMON, COUNT, FAMILY_ROWS, KIND_NAMES
from .passes.common import PREFIX, split
from .passes.couplings import couplings_by_data, couplings_by_extents
from .passes.differentiate import Builder, gradient, inputs_of, second, second_pieces, tangent
from .passes.irls import anchor, anchored_majoriser, first_system, fixed_majoriser
from .passes.landings import BY_DATA, Structure, Support
from .passes.lower import lower, lower_candidates
from .passes.prepare import hoist, prepare
from .passes.products import divide
from .passes.share import share
from .passes.simplify import inline, merge, prune, simplify
from .passes.slots import slot_product, sparse_second
from .passes.stabilise import stabilise
from .passes.support import cross_is_sparse, hessian_structure
from .passes.user_functions import check_complete, legend
from .program.expression import Affine, constant, name
from .program.program import Program, Range, Statement, inputs_read, moved
from .text import sizes
from .text.emit import Emitted, emit
from .text.function_text import Memory, Place
from .text.schedule import Schedule, schedule


@lru_cache(maxsize=8)  # every kind of kernel of an energy begins with it
def value(energy: Energy) -> Program:
    """The energy itself."""
    return inline(merge(prune(stabilise(lower(energy)))))


def many_values(energy: Energy) -> Program:
    """The energy at many points: everything that depends on the variables gets one axis more, `count` long."""
    program = simplify(value(energy))
    active = _computed_from(program, inputs_of(program, "variable"))
    counted = Range(constant(0), name(COUNT))
    lead = "q0"

    def move(array: str, subscripts: tuple[Affine, ...]) -> tuple[str, tuple[Affine, ...]]:
        return array, (name(lead), *subscripts) if array in active else subscripts

    arrays = {n: replace(a, axes=(counted, *a.axes)) if n in active else a for n, a in program.arrays.items()}
    statements = []
    for s in program.statements:
        if s.target in active:
            s = moved(s, move)
            s = replace(s, subscripts=(name(lead), *s.subscripts), loops=(lead, *s.loops))
        elif s.target == "value":
            s = replace(s, subscripts=(name(lead),), loops=(lead,))
        statements.append(s)
    arrays["value"] = replace(arrays["value"], axes=(counted,))
    ranges = {**program.ranges, lead: counted}
    return Program(arrays, ranges, (*program.extents, COUNT), tuple(statements), program.family)


def _computed_from(program: Program, roots: tuple[str, ...]) -> frozenset[str]:
    """The roots and every array that has other entries where they have: places of extremes too."""
    found = set(roots)
    for statement in program.statements:
        if not statement.arrays.isdisjoint(found):
            found.add(statement.target)
    return frozenset(found)


def _variables(program: Program) -> tuple[str, ...]:
    return inputs_of(program, "variable")


def _gradient(energy: Energy) -> Program:
    program = value(energy)
    return gradient(program, _variables(program))


def _weight_gradient(energy: Energy) -> Program:
    program = value(energy)
    return gradient(program, inputs_of(program, "weight"), prefix="weight_gradient")


def _gradients(energy: Energy) -> Program:
    program = value(energy)
    return gradient(program, (*_variables(program), *inputs_of(program, "weight")), prefix="gradients")


def _hessian(energy: Energy) -> Program:
    program = value(energy)
    return second(program, _variables(program), _variables(program), prefix="hessian")


def _gradient_hessian(energy: Energy) -> Program:
    program = _gradient(energy)
    return second(program, _variables(program), _variables(program), prefix="hessian")


def _cross(energy: Energy) -> Program:
    program = value(energy)
    return second(program, _variables(program), inputs_of(program, "weight"), prefix="cross")


def _along(energy: Energy, role: str, prefix: str) -> Program:
    program = tangent(value(energy))
    return gradient(program, inputs_of(program, role), of="value_dot", prefix=prefix)


def _sparse_hessian(program: Program) -> tuple[Program, Support]:
    return sparse_second(program, _variables(program), _variables(program))


def _gradient_sparse_hessian(energy: Energy) -> Program:
    """The gradient comes second, so that the slots are those of the Hessian alone."""
    program = _sparse_hessian(value(energy))[0]
    return gradient(program, _variables(program))


def _slot_product(energy: Energy) -> Program:
    return slot_product(*_sparse_hessian(value(energy)))


def _gradient_reweighted(energy: Energy) -> Program:
    program = fixed_majoriser(value(energy), energy)
    variables = _variables(program)
    return second(gradient(program, variables), variables, variables, of="majoriser", prefix="hessian")


def _sparse_reweighted(energy: Energy) -> tuple[Program, Support]:
    program = fixed_majoriser(value(energy), energy)
    return sparse_second(program, _variables(program), _variables(program), of="majoriser")


def _gradient_sparse_reweighted(energy: Energy) -> Program:
    program = _sparse_reweighted(energy)[0]
    return gradient(program, _variables(program))


def _reweighting_adjoint(energy: Energy) -> Program:
    program = tangent(anchored_majoriser(value(energy), energy), of="majoriser")
    roots = (*map(anchor, _variables(program)), *inputs_of(program, "weight"))
    return gradient(program, roots, of="majoriser_dot", prefix="reweighting_adjoint")


def _first_system(energy: Energy) -> Program:
    fixed_majoriser(value(energy), energy)  # refuses what is no least squares
    return first_system(value(energy))


def _gradient_first(energy: Energy) -> Program:
    program = _first_system(energy)
    return gradient(program, _variables(program))


def _hessian_first(energy: Energy) -> Program:
    program = _first_system(energy)
    return second(program, _variables(program), _variables(program), prefix="hessian")


def _first_adjoint(energy: Energy) -> Program:
    program = tangent(_first_system(energy))
    return gradient(program, inputs_of(program, "weight"), of="value_dot", prefix="first_adjoint")


def _sparse_cross(program: Program) -> tuple[Program, Support]:
    return sparse_second(program, _variables(program), inputs_of(program, "weight"))


@dataclass(frozen=True)
class Kind:
    """One kind of kernel: how its program is made, which outputs it keeps, and whether it adds to them."""

    build: Callable[[Energy], Program]
    outputs: tuple[str, ...]
    meaning: str
    accumulate: bool = False


KINDS: dict[str, Kind] = {
    "value": Kind(value, ("value",), "the energy"),
    "gradient": Kind(_gradient, ("gradient",), "the gradient in the variables"),
    "hessian": Kind(_hessian, ("hessian",), "the Hessian in the variables"),
    "value_gradient": Kind(_gradient, ("value", "gradient"), "the energy and its gradient"),
    "value_gradient_hessian": Kind(
        _gradient_hessian, ("value", "gradient", "hessian"), "the energy, its gradient and its Hessian"
    ),
    "cross": Kind(_cross, ("cross",), "the derivative of the gradient in the weights"),
    "hvp": Kind(lambda e: _along(e, "variable", "hvp"), ("hvp",), "the Hessian times the direction v"),
    "cross_adjoint": Kind(
        lambda e: _along(e, "weight", "cross_adjoint"), ("cross_adjoint",), "d/dw (v . gradient)", accumulate=True
    ),
    "data_adjoint": Kind(
        lambda e: _along(e, "data", "data_adjoint"), ("data_adjoint",), "d/dx (v . gradient)", accumulate=True
    ),
    "many_values": Kind(many_values, ("value",), "the energy at many points"),
    "sparse_hessian": Kind(
        lambda e: _sparse_hessian(value(e))[0], ("slot",), "the numbers of a sparse Hessian in the variables"
    ),
    "value_gradient_sparse_hessian": Kind(
        _gradient_sparse_hessian,
        ("value", "gradient", "slot"),
        "the energy, its gradient and the numbers of its sparse Hessian",
    ),
    "sparse_cross": Kind(
        lambda e: _sparse_cross(value(e))[0],
        ("slot",),
        "the numbers of a sparse derivative of the gradient in the weights",
    ),
    "sparse_hvp": Kind(_slot_product, ("hvp",), "the sparse Hessian times v, y being the numbers of the Hessian"),
    "candidates": Kind(lower_candidates, ("candidates",), "the declared candidates"),
    "weight_gradient": Kind(_weight_gradient, ("weight_gradient",), "the gradient in the weights, the variables held"),
    "gradients": Kind(_gradients, ("gradients",), "the gradient in the variables, then that in the weights"),
}


REWEIGHTING: dict[str, Kind] = {
    "value_gradient_reweighted": Kind(
        _gradient_reweighted,
        ("value", "gradient", "hessian"),
        "the energy, its gradient and the Hessian of its reweighted least squares",
    ),
    "reweighting_adjoint": Kind(
        _reweighting_adjoint,
        ("reweighting_adjoint",),
        "d/dz and d/dw (v . gradient at y of the least squares with the weights of z); v holds v and then z",
        accumulate=True,
    ),
    "value_gradient_sparse_reweighted": Kind(
        _gradient_sparse_reweighted,
        ("value", "gradient", "slot"),
        "the energy, its gradient and the numbers of the sparse Hessian of its reweighted least squares",
    ),
    "sparse_reweighted_product": Kind(
        lambda e: slot_product(*_sparse_reweighted(e)), ("hvp",), "that sparse Hessian times v, y being its numbers"
    ),
    "value_gradient_first": Kind(
        _gradient_first, ("value", "gradient"), "the energy of the first system (held.py) and its gradient"
    ),
    "hessian_first": Kind(_hessian_first, ("hessian",), "the Hessian of the first system"),
    "first_adjoint": Kind(
        _first_adjoint, ("first_adjoint",), "d/dw (v . gradient of the first system)", accumulate=True
    ),
}
"""The kinds that robust least squares have besides (irls.py); other energies have none of them: UnsupportedError."""

_ALL = {**KINDS, **REWEIGHTING}

assert {kind for kind, how in _ALL.items() if how.accumulate} == ADJOINTS
assert tuple(_ALL) == KIND_NAMES


def find_structure(energy: Energy, derivative: str) -> Structure:
    """The structure of the "hessian", of the "reweighted" one (irls.py), or of the "cross" derivative.

    BY_DATA: see couplings.py.
    """
    if derivative == "reweighted":
        return Structure(find_structure(energy, "hessian").name, _sparse_reweighted(energy)[1])
    program = value(energy)
    builder, variables = Builder(program), _variables(program)
    if program.family and _lands_by_member(program, derivative):
        return Structure("dense", None)
    if derivative == "hessian":
        pieces = second_pieces(builder, variables, variables, "value")
        found = hessian_structure(program, builder.ranges, variables, pieces)
        couplings = couplings_by_extents(program, builder.ranges, variables, pieces)
        return Structure(found, None if found == "dense" else _sparse_hessian(program)[1], couplings)
    if derivative == BY_DATA:
        pieces = second_pieces(builder, variables, variables, "value")
        return Structure(BY_DATA, couplings_by_data(program, builder.ranges, variables, pieces))
    weights = inputs_of(program, "weight")
    pieces = second_pieces(builder, variables, weights, "value")
    if cross_is_sparse(program, builder.ranges, weights, pieces):
        return Structure("sparse", _sparse_cross(program)[1])
    return Structure("dense", None)


def _lands_by_member(program: Program, derivative: str) -> bool:
    """Whether where the numbers of a second derivative go depends on the member of a family: no pattern is shared."""
    right = inputs_of(program, "weight") if derivative == "cross" else _variables(program)
    builder = Builder(program)
    pieces = [p for found in second_pieces(builder, _variables(program), right, "value").values() for p in found]
    names = {n for p in pieces for s in (*p.left, *p.right) for n in s.names}
    names |= {n for p in pieces for i in p.loops for n in builder.ranges[i].names}
    return not names.isdisjoint(program.family)


@lru_cache(maxsize=2)  # of a family two texts begin with it
def derive(energy: Energy, kind: str) -> Program:
    """The simplified program of one kind."""
    program = _ALL[kind].build(energy)
    program = simplify(divide(_only(program, _ALL[kind].outputs)))
    return check_complete(program, energy.name, _ALL[kind].meaning)


def _only(program: Program, prefixes: tuple[str, ...]) -> Program:
    """Forget the outputs that are not wanted."""
    unwanted = {a.name for a in program.arrays.values() if a.role == "output" and not _starts(a.name, prefixes)}
    arrays = {n: a for n, a in program.arrays.items() if n not in unwanted}
    statements: list[Statement] = [s for s in program.statements if s.target not in unwanted]
    return replace(program, arrays=arrays, statements=tuple(statements))


def _starts(array: str, prefixes: tuple[str, ...]) -> bool:
    return any(array == p or array.startswith(f"{p}_") for p in prefixes)


def scheduled(energy: Energy, kind: str) -> tuple[Program, Schedule]:
    """The program of one kind as it is emitted, and its loop nests; `common KIND` is what its members share."""
    program = share(derive(energy, kind.removeprefix(COMMON)))
    if program.family:
        program, common = split(program)
        if kind.startswith(COMMON):
            assert common is not None, "members have something in common"
            program = common
    program = merge(hoist(prepare(program)))
    innermost = None
    if kind == "many_values":
        innermost = next(i for i, r in program.ranges.items() if r.stop == name(COUNT))
    return program, schedule(program, innermost)


def compile_text(energy: Energy, kind: str) -> Emitted:
    """The source of one kind of kernel and the memory that it needs."""
    program, plan = scheduled(energy, kind)
    meaning = _ALL[kind.removeprefix(COMMON)].meaning
    title = f"{f'what members have in common, for {meaning}' if kind.startswith(COMMON) else meaning}; energy:"
    emitted = emit(plan, memory(energy, kind, program), out_size(kind, program), title, _legend(energy))
    return replace(emitted, reads=inputs_read(derive(energy, kind.removeprefix(COMMON))))


def _legend(energy: Energy) -> list[str]:
    """The energy in generated names, then what the names stand for; ASCII, one line each."""
    program = value(energy)
    lines = [str(s) for s in program.statements]
    for array in program.arrays.values():
        if array.role in ("variable", "weight", "data"):
            lines.append(f"{array.name}: {array.role} {array.origin}")
    lines += [f"{n}: extent {ascii(str(s))[1:-1]}" for n, s in zip(program.extents, energy.extents, strict=True)]
    lines += [f"{n}: family {ascii(str(i))[1:-1]}" for n, i in zip(program.family, energy.over, strict=True)]
    lines += legend(program)
    return [line.encode("ascii", "backslashreplace").decode() for line in lines]


def offsets(program: Program, role: str) -> tuple[dict[str, sizes.Size], sizes.Size]:
    """Where each array of a role begins when they are packed one after another, and their total size."""
    total: sizes.Size = sizes.ZERO_SIZE
    found = {}
    for array in program.arrays.values():
        if array.role == role:
            found[array.name] = total
            total = sizes.plus(total, sizes.volume(array.axes))
    return found, total


def _common_places(program: Program) -> tuple[dict[str, sizes.Size], sizes.Size]:
    """Where each array lies among what members have in common, by the name of the given array; and their size."""
    total: sizes.Size = sizes.ZERO_SIZE
    found = {}
    for array in program.arrays.values():
        if array.role == "common" or array.name.startswith(PREFIX):
            found[array.name.removeprefix(PREFIX)] = total
            total = sizes.plus(total, sizes.room(array.axes))
    return found, total


def _common_memory(program: Program) -> Memory:
    """Where the inputs and outputs lie of what writes what members have in common."""
    inputs = [a for a in program.arrays.values() if a.role in ("weight", "data")]
    found, _ = _common_places(program)
    places = {
        PREFIX + n: Place(offset, ((len(program.arrays[PREFIX + n].axes), sizes.ONE_SIZE),))
        for n, offset in found.items()
    }
    return Memory({}, {a.name: row for row, a in enumerate(inputs)}, places)


def memory(energy: Energy, kind: str, program: Program) -> Memory:
    """Where the inputs and outputs of a kind of kernel lie."""
    if kind.startswith(COMMON):
        return _common_memory(program)
    plain = lower(energy) if kind in ("many_values", "sparse_hvp", "sparse_reweighted_product") else program
    inputs = [a for a in plain.arrays.values() if a.role in ("weight", "data")]
    table = {a.name: row for row, a in enumerate(inputs)}
    at, m = offsets(plain, "variable")
    weights_at, p = offsets(plain, "weight")
    data_at, _ = offsets(replace(plain, arrays={n: a for n, a in plain.arrays.items() if not a.integer}), "data")
    one = sizes.ONE_SIZE
    ranks = {n: len(a.axes) for n, a in plain.arrays.items()}
    places = {"value": Place(sizes.ZERO_SIZE, ((1, one),) if kind == "many_values" else ())}
    after_gradient = m if "gradient" in _ALL[kind].outputs else sizes.ZERO_SIZE
    for a, offset in at.items():
        places[f"gradient_{a}"] = places[f"hvp_{a}"] = Place(offset, ((ranks[a], one),))
        places[f"candidates_{a}"] = Place(offset, ((1, m), (ranks[a], one)))
        for b, other in at.items():
            where = sizes.plus(after_gradient, sizes.times(offset, m), other)
            places[f"hessian_{a}_{b}"] = Place(where, ((ranks[a], m), (ranks[b], one)))
        for b, other in weights_at.items():
            places[f"cross_{a}_{b}"] = Place(
                sizes.plus(sizes.times(offset, p), other), ((ranks[a], p), (ranks[b], one))
            )
    at_slot = after_gradient
    for array in program.arrays.values():
        if array.role == "output" and array.name.startswith("slot_"):
            places[array.name] = Place(at_slot, ((len(array.axes), one),))
            at_slot = sizes.plus(at_slot, sizes.volume(array.axes))
    for b, other in weights_at.items():
        for kind_of_weights in ("cross_adjoint", "weight_gradient", "first_adjoint"):
            places[f"{kind_of_weights}_{b}"] = Place(other, ((ranks[b], one),))
    for b, other in data_at.items():
        places[f"data_adjoint_{b}"] = Place(other, ((ranks[b], one),))
    along = {a.replace("y", "v", 1): offset for a, offset in at.items()}
    anchors = {anchor(a): sizes.plus(m, offset) for a, offset in at.items()}
    variables = {**offsets(program, "variable")[0], **at, **along, **anchors}
    for a, offset in at.items():
        places[f"reweighting_adjoint_{anchor(a)}"] = places[f"gradients_{a}"] = Place(offset, ((ranks[a], one),))
    for b, other in weights_at.items():
        behind = Place(sizes.plus(m, other), ((ranks[b], one),))
        places[f"reweighting_adjoint_{b}"] = places[f"gradients_{b}"] = behind
    outputs = {n: place for n, place in places.items() if n in program.arrays}
    blocks = [s for s in program.statements if s.target.startswith("hessian_")]
    mirror = (after_gradient, m) if blocks and (len(at) > 1 or any(ranks[a] for a in at)) else None
    steps = dict.fromkeys(at, m) if kind == "many_values" else {}
    return Memory(
        variables, table, outputs, _ALL[kind].accumulate, mirror, steps, rough=kind == "many_values",
        common=_common_places(program)[0], common_row=len(inputs) + FAMILY_ROWS.index(kind),
        chosen_row=len(inputs) + FAMILY_ROWS.index(CHOSEN),
    )  # fmt: skip


def out_size(kind: str, program: Program) -> sizes.Size:
    """Numbers that a kernel writes to `out` for one instance."""
    if kind.startswith(COMMON):
        return _common_places(program)[1]
    total: sizes.Size = sizes.ZERO_SIZE
    for array in program.arrays.values():
        if array.role == "output" and (array.name != "value" or array.axes):
            total = sizes.plus(total, sizes.volume(array.axes))
    if any(a.name.startswith("hessian_") for a in program.arrays.values()):
        _, m = offsets(program, "variable")
        total = sizes.plus(sizes.times(m, m), m if "gradient" in _ALL[kind].outputs else sizes.ZERO_SIZE)
    return total
