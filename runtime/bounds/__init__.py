"""Minimising within a box."""
