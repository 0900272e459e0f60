"""Whether a frame shows enough of a body for a pose."""

from __future__ import annotations

from enum import IntEnum

CAMERAS, SEEN = 2, 6
"""A frame needs so many cameras, and so many joints in each, to say where a body is."""


class Frame(IntEnum):
    """Whether a frame shows enough for a pose."""

    ENOUGH = 0
    FEW_CAMERAS = 1
    FEW_JOINTS = 2
    NO_HEADING = 3
