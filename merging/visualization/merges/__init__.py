"""Merged models, with their words."""
