"""How the minimisation of an instance may end: the numbers that drivers write, which `solution.Status` explains."""

CONVERGED, STALLED, ITERATION_LIMIT, NOT_FINITE, UNBOUNDED, SADDLE = 0, 1, 2, 3, 4, 5

FAR = 1e12
ABYSS = -1e150
"""An instance is unbounded this far from its start, or at this energy. Derivatives above 1e154 count as infinite."""
