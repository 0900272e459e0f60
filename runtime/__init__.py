"""Minimisation of energies over batches."""

from ..compiler.calls.threads import set_threads
from .minimise import minimise
from .solution import Solution, Status
from .stream import minimise_stream

__all__ = ["Solution", "Status", "minimise", "minimise_stream", "set_threads"]
