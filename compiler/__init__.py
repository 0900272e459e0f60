"""From an energy to kernels: the indexed program, its derivatives, and the machine code.

Reading order:

    expression, special, primitives, program    the language between SymPy and kernels
    ranges, intervals, family                   ranges that depend on other indices; what values a formula can take;
                                                indices of families
    lower, user_functions, stabilise,           from SymPy to the language
    differentiate, products, simplify, share,   the passes, put together in derive
    common, prepare, schedule, rows, freeze,
    sizes, emit, nests
    landings, support, slots, pattern,          sparse second derivatives: found, computed, filled in
    compressed
    reference                                   the interpreter
    vectormath, pointers, entry                 kernels in machine code, by numba
    signature, calling, translate               drivers in machine code
    native, cache                               where both are kept
    declaration, arrays, accesses, layout,      from the user's arrays to a call
    binding, threads, memory, slices, evaluate,
    kernel
    formula, random_energies, testing           checks against the SymPy expression itself
    readable, costs, nonfinite, explain         what a kernel says about itself
"""

from .kernel import Kernel, compile, supported_functions
from .threads import set_threads

__all__ = ["Kernel", "compile", "set_threads", "supported_functions"]
