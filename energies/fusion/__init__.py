"""Fusing the boxes of many trackers: energies of boxes and corners, and what they read of frames.

tracks.py     boxes of trackers, frame by frame, from and to files
overlap.py    intersection over union
features.py   what the energies read of a frame
base.py       what the fusions share
box.py        one energy over the whole box
corners.py    the paper's two energies of corners
settings.py   presets
scores.py     figures, how sure they are, and simple fusions to compare with
formats.py    benchmarks' own files
made_up.py    tracks to try it on
"""

from .base import Fusion
from .box import BoxFusion, gaussian, heavy_tail
from .corners import CornerFusion
from .features import Features, Frame, features
from .formats import FORMATS, convert, read_regions
from .made_up import made_up, made_up_arrays
from .overlap import overlap, usable
from .scores import baselines, by_sequence, interpolated, interval, oracle, overlaps_of, paired_test, ranking
from .settings import Settings
from .tracks import PARTITIONS, Tracks

__all__ = [
    "FORMATS",
    "PARTITIONS",
    "BoxFusion",
    "CornerFusion",
    "Features",
    "Frame",
    "Fusion",
    "Settings",
    "Tracks",
    "baselines",
    "by_sequence",
    "convert",
    "features",
    "gaussian",
    "heavy_tail",
    "interpolated",
    "interval",
    "made_up",
    "made_up_arrays",
    "oracle",
    "overlap",
    "overlaps_of",
    "paired_test",
    "ranking",
    "read_regions",
    "usable",
]
