"""How minima move with the weights: the damped derivative, in all the ways that it is solved for."""
