"""How the commands of the shell end: 0, and these."""

FOUND = 1
"""A derivative is wrong, a number is not finite."""

REFUSED = 2
"""What was asked for cannot be done."""

INTERRUPTED = 130
"""Ctrl-C, or the signal that asks a process to end."""
