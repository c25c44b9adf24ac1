"""Models out of `.pt2` archives: a graph taken over as data."""
