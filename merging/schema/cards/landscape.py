"""How finely a landscape is drawn, and what may be done to statistics on it; no torch."""

from __future__ import annotations

from typing import Literal

# Points per side of a surface: every level keeps all points of the one before it.
LEVELS = (9, 17, 33, 65)
# Steps along an edge of a simplex: every level keeps all points of the one before it.
SIMPLEX_LEVELS = (4, 8, 16, 32)
# Points of a surface or a simplex that are computed in one piece.
PIECE_POINTS = 52

# What puts the statistics of a merged model's units back where they should be.
Correction = Literal["reset", "repair", "rescale"]
# The same, and none.
Statistics = Literal["interpolated", "reset", "repair", "rescale"]
