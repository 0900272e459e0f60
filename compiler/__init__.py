"""From an energy to kernels: the indexed program, its derivatives, and the machine code.

Reading order:

    program/        the language between SymPy and kernels: expression, special, primitives, program; ranges and
                    families of indices; readable (programs as people read them); reference (the interpreter)
    passes/         lower, user_functions, stabilise: from SymPy to the language; differentiate, products, simplify,
                    share, common, prepare: derivatives, and what is computed once; intervals, degree, elimination,
                    irls: what is found in a program; couplings, landings, support, slots: sparse second derivatives
    derive          the passes put together, for each kind of kernel
    text/           schedule, rows, tiles: which loops, in what order; freeze, sizes, nests, nest_text, function_text,
                    emit: the text of a kernel
    machine_code/   vectormath, pointers, entry: kernels, by numba; signature, calling, translate: drivers; native and
                    cache, where both are kept
    calls/          from the user's arrays to a call: declaration, arrays, accesses, layout, binding; threads, memory,
                    slices, evaluate: over batches; pattern, compressed: into sparse matrices
    kernel          what a user holds
    points, formula, random_energies, testing      checks against the SymPy expression itself
    costs, nonfinite, explain                      what a kernel says about itself
"""

from .calls.threads import set_threads
from .kernel import Kernel, compile, supported_functions

__all__ = ["Kernel", "compile", "set_threads", "supported_functions"]
