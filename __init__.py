"""wiberg: declare an energy in SymPy, minimise it in batches, learn its weights end to end.

Imports run one way: energies <- compiler <- runtime <- learn. `wiberg.testing` is compiler/testing.py: derivative
checks, and hypothesis strategies for users' own tests.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .compiler import Kernel, compile, set_threads, supported_functions
from .compiler.lazy import lazy_module
from .energies import (
    CheckpointError,
    DeclarationError,
    Energy,
    InputError,
    InputTypeError,
    MissingPackageError,
    NameMissingError,
    NumericalError,
    UnboundedDerivativeWarning,
    UnsupportedError,
    WibergError,
    cauchy,
    function,
    geman_mcclure,
    held,
    log_sum_exp,
    logistic,
    maximum,
    minimum,
    pseudo_huber,
    softplus,
    student_t,
    welsch,
)
from .runtime import Solution, Status, minimise, minimise_stream

if TYPE_CHECKING:
    from .learn import (
        SGD,
        Adam,
        Batch,
        BatchParts,
        CosineDecay,
        History,
        Learner,
        Loss,
        Output,
        PiecewiseLinear,
        Selection,
        StepDecay,
        UnconvergedWarning,
        Warmup,
        Weight,
        ZeroGradientWarning,
        absolute_error,
        generalised_iou_loss,
        implicit_data_gradient,
        implicit_gradient,
        implicit_jacobian,
        iou_loss,
        mean_joint_distance,
        pseudo_huber_error,
        squared_error,
    )

__version__ = "0.1.0"

FIGURES = {
    "plot_energy": ".learn.reports.landscape",
    "plot_history": ".learn.reports.figures",
    "plot_movement": ".learn.reports.movement",
    "plot_path": ".runtime.plot",
}

testing = sys.modules[f"{__name__}.testing"] = lazy_module(f"{__name__}.compiler.testing")


def __getattr__(name: str) -> Any:
    if name == "check_derivatives":
        return testing.check_derivatives
    if name in FIGURES:
        return getattr(import_module(FIGURES[name], __name__), name)
    if name in ("unrolled_gradient", "unrolled_start_gradient"):
        from .learn.derivative import unrolled

        return getattr(unrolled, name)
    if name in ("torch", "jax", "sklearn"):
        from .learn.frameworks import framework

        return framework(name)
    if name == "learn" or name in __all__:  # a third of the time to import, and minimising needs none of it
        learn = import_module(".learn", __name__)
        globals().update({each: getattr(learn, each) for each in learn.__all__})
        return globals()[name]
    raise AttributeError(f"module 'wiberg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "SGD",
    "Adam",
    "Batch",
    "BatchParts",
    "CheckpointError",
    "CosineDecay",
    "DeclarationError",
    "Energy",
    "History",
    "InputError",
    "InputTypeError",
    "Kernel",
    "Learner",
    "Loss",
    "MissingPackageError",
    "NameMissingError",
    "NumericalError",
    "Output",
    "PiecewiseLinear",
    "Selection",
    "Solution",
    "Status",
    "StepDecay",
    "UnboundedDerivativeWarning",
    "UnconvergedWarning",
    "UnsupportedError",
    "Warmup",
    "Weight",
    "WibergError",
    "ZeroGradientWarning",
    "absolute_error",
    "cauchy",
    "check_derivatives",
    "compile",
    "function",
    "geman_mcclure",
    "generalised_iou_loss",
    "held",
    "implicit_data_gradient",
    "implicit_gradient",
    "implicit_jacobian",
    "iou_loss",
    "log_sum_exp",
    "logistic",
    "maximum",
    "mean_joint_distance",
    "minimise",
    "minimise_stream",
    "minimum",
    "plot_energy",
    "plot_history",
    "plot_movement",
    "plot_path",
    "pseudo_huber",
    "pseudo_huber_error",
    "set_threads",
    "softplus",
    "squared_error",
    "student_t",
    "supported_functions",
    "testing",
    "unrolled_gradient",
    "unrolled_start_gradient",
    "welsch",
]
