"""Curves along a line, with their words."""
