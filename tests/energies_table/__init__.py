"""Small energies that all tests share: classical ones, those of the examples, and one for each thing one can declare.

`TABLE` maps a name to a function without arguments that makes the energy; `draw` makes points for it.
"""

from . import classical, language
from .points import draw, extent_sizes, generated
from .symbols import TABLE

RANDOM_SEEDS = range(1000, 1040)  # of the random energies that tests compile to machine code

__all__ = ["RANDOM_SEEDS", "TABLE", "classical", "draw", "extent_sizes", "generated", "language"]
