"""What a loop nest is: loops, and the statements inside them."""

from __future__ import annotations

from dataclasses import dataclass

from ..program.program import Statement


@dataclass(frozen=True)
class Nest:
    """Loops from the outermost to the innermost, and the statements in the body.

    A nest that is `joined` has its outermost loop together with the nest before it (rows.py).
    """

    loops: tuple[str, ...]
    statements: tuple[Statement, ...]
    joined: bool = False
