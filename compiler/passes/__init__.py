"""Passes: from SymPy to a program, from a program to its derivatives and safer, smaller, sparse forms."""
