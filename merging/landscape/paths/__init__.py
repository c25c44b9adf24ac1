"""Trained paths between two models."""
