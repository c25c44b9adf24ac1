"""Permutations, groups and layers, with their words."""
