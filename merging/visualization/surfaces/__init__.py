"""Surfaces on a plane, with their words."""
