"""Human pose from 2D detections: skeleton and body models, features of detections, the multi-camera energies, errors.

Section 5 of the paper. Declarations in SymPy and features in NumPy; who minimises and learns is docs/pose.md's.
"""

from .body import MIXTURES, BodyModels, fit_bodies
from .bones import steadied
from .calibrated import STIFFNESS, Calibrated, Features, in_body_frame
from .cameras import Cameras
from .errors_mm import ERRORS, euclidean, procrustes
from .features import detections, enough, enough_of_one, normalise, rotations
from .frame import Frame
from .monocular import CHOICES, Monocular
from .multi_camera import SOLVERS, MultiCamera
from .skeleton import COCO, EDGES, JOINTS, MPII, NORMALISATION_EDGES, limb_norm, to_joints

__all__ = [
    "CHOICES",
    "COCO",
    "EDGES",
    "ERRORS",
    "JOINTS",
    "MIXTURES",
    "MPII",
    "NORMALISATION_EDGES",
    "SOLVERS",
    "STIFFNESS",
    "BodyModels",
    "Calibrated",
    "Cameras",
    "Features",
    "Frame",
    "Monocular",
    "MultiCamera",
    "detections",
    "enough",
    "enough_of_one",
    "euclidean",
    "fit_bodies",
    "in_body_frame",
    "limb_norm",
    "normalise",
    "procrustes",
    "rotations",
    "steadied",
    "to_joints",
]
