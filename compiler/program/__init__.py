"""The indexed program: what an energy is between SymPy and a kernel."""
