"""The parts of wiberg that need another framework, each imported when first asked for: `wb.torch`, `wb.jax`, ..."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from ...energies.errors import MissingPackageError

MODULES = {
    "torch": ("torch_layer", "torch", "PyTorch"),
    "jax": ("jax_layer", "jax", "JAX"),
    "sklearn": ("sklearn_estimator", "sklearn", "scikit-learn"),
}
"""Name in `wb` -> module here, the package that it needs, and what people call that. The extra has the same name."""


def framework(name: str) -> ModuleType:
    """The module behind `wb.NAME`.

    Raises
    ------
    MissingPackageError
        If the package is not installed; it says what to install.
    """
    module, package, title = MODULES[name]
    try:
        return import_module(f".{module}", __package__)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != package:
            raise
        raise MissingPackageError(
            f"wb.{name} needs {title}, which is not installed: pip install 'wiberg[{name}]' (docs/frameworks.md)"
        ) from None
