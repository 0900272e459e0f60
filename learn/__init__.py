"""Learning the weights of energies from what their minima should be."""

from .batches import Batch, BatchParts
from .derivative.implicit import UnconvergedWarning, implicit_gradient, implicit_jacobian
from .derivative.upstream import implicit_data_gradient
from .history import History
from .learner import Learner
from .loss import Loss
from .losses import (
    absolute_error,
    generalised_iou_loss,
    iou_loss,
    mean_joint_distance,
    pseudo_huber_error,
    squared_error,
)
from .optimiser import SGD, Adam
from .output import Output
from .schedule import CosineDecay, PiecewiseLinear, StepDecay, Warmup
from .selection import Selection
from .weight import Weight
from .zero_gradients import ZeroGradientWarning

__all__ = [
    "SGD",
    "Adam",
    "Batch",
    "BatchParts",
    "CosineDecay",
    "History",
    "Learner",
    "Loss",
    "Output",
    "PiecewiseLinear",
    "Selection",
    "StepDecay",
    "UnconvergedWarning",
    "Warmup",
    "Weight",
    "ZeroGradientWarning",
    "absolute_error",
    "generalised_iou_loss",
    "implicit_data_gradient",
    "implicit_gradient",
    "implicit_jacobian",
    "iou_loss",
    "mean_joint_distance",
    "pseudo_huber_error",
    "squared_error",
]
