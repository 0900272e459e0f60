"""What is known of a sparse derivative before any extent is: its structure, and where the numbers of a kernel go.

slots.py makes it from the pieces of a second derivative; pattern.py works out the entries for given arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..program.expression import Affine
from ..program.program import Range

ONCE, UPPER, MIRRORED = "once", "upper", "mirrored"
"""An entry counts once; once if it is not below the diagonal, and then for both halves; for both halves always."""

BY_DATA = "couplings by data"
"""What is asked for as a derivative where only the places of entries are wanted, of a Hessian of any structure."""


@dataclass(frozen=True)
class Landing:
    """Where the numbers of one piece go: for all loops, slot[at] is added to d2E/da[left] db[right]."""

    slot: str
    at: tuple[Affine, ...]
    loops: tuple[tuple[str, Range], ...]
    row: str
    left: tuple[Affine, ...]
    column: str
    right: tuple[Affine, ...]
    counts: str


@dataclass(frozen=True)
class Support:
    """All entries that a sparse derivative can have.

    slots      the slot arrays in the order in which they lie in memory, with their axes
    rows       the arrays that the rows belong to, with their axes; `columns` likewise
    gathered   the index arrays that tell entries
    """

    slots: tuple[tuple[str, tuple[Range, ...]], ...]
    rows: tuple[tuple[str, tuple[Range, ...]], ...]
    columns: tuple[tuple[str, tuple[Range, ...]], ...]
    landings: tuple[Landing, ...]
    gathered: tuple[str, ...]


@dataclass(frozen=True)
class Structure:
    """What is known of a second derivative before any extent is: its name, and its entries where it is sparse.

    couplings   of a Hessian, all entries that it can have, dense or not, whatever index data say (couplings.py); None
                where that is not known
    """

    name: str
    support: Support | None
    couplings: Support | None = None
