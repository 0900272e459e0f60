"""Learning the weights of energies from what their minima should be."""

from .batches import Batch
from .history import History
from .implicit import UnconvergedWarning, implicit_gradient, implicit_jacobian
from .learner import Learner
from .loss import Loss, absolute_error, squared_error
from .optimiser import SGD
from .output import Output
from .selection import Selection
from .weight import Weight

__all__ = [
    "SGD",
    "Batch",
    "History",
    "Learner",
    "Loss",
    "Output",
    "Selection",
    "UnconvergedWarning",
    "Weight",
    "absolute_error",
    "implicit_gradient",
    "implicit_jacobian",
    "squared_error",
]
