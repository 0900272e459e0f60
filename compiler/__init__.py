"""From an energy to kernels: the indexed program, its derivatives, and the machine code.

Reading order: expression, program, primitives, lower, differentiate, simplify, prepare, schedule, freeze, emit (the
passes, put together in derive); reference (the interpreter); vectormath, calling, native, cache, entry (machine code);
binding, evaluate, threads, kernel (calling it); testing (checks for users).
"""

from .kernel import Kernel, compile
from .lower import supported_functions
from .threads import set_threads

__all__ = ["Kernel", "compile", "set_threads", "supported_functions"]
