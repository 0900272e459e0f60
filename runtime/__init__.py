"""Minimisation of energies over batches."""

from ..compiler.threads import set_threads
from .minimise import minimise
from .solution import Solution, Status

__all__ = ["Solution", "Status", "minimise", "set_threads"]
