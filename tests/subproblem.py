"""The conditions of the exact trust region subproblem.

(H + mu) p = -g,   mu >= 0,   H + mu positive semi-definite,   mu (radius - |p|) = 0,   |p| <= radius

The first is relative to |H| radius + |g|, curvatures to |H| + |g| / radius, lengths to the radius. mu is the best for
the first where |p| is the radius (but for 1e-10 of it), and 0 inside. Residuals are computed in extended precision.
"""

import numpy as np

TOLERANCE = 1e-10


def violations(h, g, radius, p):
    """By how much each condition is violated, relative to its scale."""
    largest = abs(h).max()
    values = largest * np.linalg.eigvalsh(h / largest) if largest > 0 else np.zeros(len(g))
    exact, radius = np.longdouble, np.longdouble(radius)
    h, g, p = h.astype(exact), g.astype(exact), p.astype(exact)
    scale = abs(values).max() + np.sqrt(g @ g) / radius
    length, rest = np.sqrt(p @ p), g + h @ p
    assert np.isfinite(length)
    if scale == 0:
        return {"length": float(max(0, length / radius - 1))}
    mu = -(p @ rest) / (p @ p) if length > radius * (1 - TOLERANCE) else exact(0)
    residual = rest + mu * p
    return {
        "stationary": float(np.sqrt(residual @ residual) / (scale * radius)),
        "multiplier": float(max(0, -mu) / scale),
        "semi-definite": float(max(0, -(values[0] + mu)) / scale),
        "complementary": float(abs(mu * (radius - length)) / (scale * radius)),
        "length": float(max(0, length / radius - 1)),
    }
