"""Learning the weights of energies from what their minima should be."""

from .history import History
from .implicit import UnconvergedWarning, implicit_gradient, implicit_jacobian
from .learner import Batch, Learner
from .loss import Loss, absolute_error, squared_error
from .optimiser import SGD
from .weight import Weight

__all__ = [
    "SGD",
    "Batch",
    "History",
    "Learner",
    "Loss",
    "UnconvergedWarning",
    "Weight",
    "absolute_error",
    "implicit_gradient",
    "implicit_jacobian",
    "squared_error",
]
