"""The 35 problems of More, Garbow and Hillstrom (1981) as energies, shared by tests and benchmarks.

`PROBLEMS` is the table; `residuals.RESIDUALS` are the same problems in plain NumPy, an independent reference.
"""

from .problem import FACTORS, Minimum, Problem
from .table import PROBLEMS

__all__ = ["FACTORS", "PROBLEMS", "Minimum", "Problem"]
