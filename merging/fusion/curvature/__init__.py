"""Curvature of a model's loss: diagonal, Kronecker-factored, whole, or out of an optimizer."""
