"""What there is to choose, as plain data: pairs, matching methods, paths, fusion rules."""
