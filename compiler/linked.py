"""`linked`: a jitted function that exists only beside its callers.

numba optimises every jitted function, and makes it executable with wrappers for Python, before it is linked into
whatever calls it, where it is optimised again. A driver made of twenty functions compiles in half the time where these
are only translated on their own, and optimised once, in the driver. They are called there, never inlined: a call costs
2 ns, and each copy that LLVM would make costs 10 ms.
"""

from __future__ import annotations

from typing import Any

import numba
from numba import njit
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

SKIPPED = frozenset(
    {
        "WithLifting",
        "InlineClosureLikes",
        "DeadBranchPrune",
        "RewriteDynamicRaises",
        "MakeFunctionToJitFunction",
        "InlineInlinables",
        "FindLiterallyCalls",
        "LiteralUnroll",
        "LiteralPropagationSubPipelinePass",
        "InlineOverloads",
        "NopythonRewrites",
        "DumpParforDiagnostics",
        "RewriteSemanticConstants",
        "GenericRewrites",
    }
)
"""Passes for closures, arrays, exceptions and literals, which such functions do not use."""


class _Codegen:
    """numba's code generator, but for storing an environment in machine code that does not exist."""

    def __init__(self, codegen: Any) -> None:
        self._codegen = codegen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codegen, name)

    def set_env(self, name: str, environment: Any) -> None:
        pass


class _LinkedLibrary(JITCodeLibrary):  # type: ignore[misc]
    """LLVM code that waits to be linked, neither optimised nor executable."""

    _shared_module: Any

    @property
    def codegen(self) -> Any:
        return _Codegen(self._codegen)

    def finalize(self) -> None:
        self._raise_if_finalized()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        return 0

    def _optimize_functions(self, module: Any) -> None:
        module.data_layout = self._codegen._data_layout

    def _get_module_for_linking(self) -> Any:
        """This function and all that it calls, each linked once."""
        if self._shared_module is None:
            module = self._final_module.clone()
            for library in self._reached():
                linked = isinstance(library, _LinkedLibrary)
                module.link_in(library._final_module if linked else library._get_module_for_linking(), preserve=True)
            for function in module.functions:
                if not function.is_declaration:
                    function.add_function_attribute("noinline")
                    if function.linkage.name == "external":
                        function.linkage = "linkonce_odr"
            self._shared_module = module
        return self._shared_module

    def _reached(self) -> list[Any]:
        found: dict[Any, None] = {}
        todo = list(self._linking_libraries)
        while todo:
            library = todo.pop()
            if library not in found:
                found[library] = None
                if isinstance(library, _LinkedLibrary):
                    todo.extend(library._linking_libraries)
        return list(found)


class _LinkedCompiler(Compiler):  # type: ignore[misc]
    def compile_extra(self, function: Any) -> Any:
        if self.state.library is None:
            self.state.library = _LinkedLibrary(self.state.targetctx.codegen(), function.__qualname__)
        return super().compile_extra(function)

    def define_pipelines(self) -> Any:
        pipelines = super().define_pipelines()
        for pipeline in pipelines:
            pipeline._finalized = False
            pipeline.passes = [entry for entry in pipeline.passes if entry[0].__name__ not in SKIPPED]
            pipeline.finalize()
        return pipelines


TESTED = ("0.68",)
"""Versions of numba whose internals are as this file expects. Others compile these functions in the ordinary way."""

_options: dict[str, Any] = {"pipeline_class": _LinkedCompiler} if numba.__version__.startswith(TESTED) else {}

linked = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, **_options)
"""A decorator, for functions that are called by compiled functions only (`native` compiles those)."""
