"""Human pose from 2D detections: skeleton and body models, features of detections, the multi-camera energies, errors.

Section 5 of the paper. Declarations in SymPy and features in NumPy; who minimises and learns is docs/pose.md's.
"""

from .body import MIXTURES, BodyModels, fit_bodies
from .bones import steadied
from .calibrated import STIFFNESS, Calibrated, Features, in_body_frame
from .cameras import Cameras
from .errors_mm import ERRORS, euclidean, procrustes
from .features import detections, normalise, rotations
from .frame import Frame, counts, frame_status, view_status
from .monocular import Monocular
from .multi_camera import CHOICES, SOLVERS, MultiCamera
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
    "counts",
    "detections",
    "euclidean",
    "fit_bodies",
    "frame_status",
    "in_body_frame",
    "limb_norm",
    "normalise",
    "procrustes",
    "rotations",
    "steadied",
    "to_joints",
    "view_status",
]
