"""Losses and predictions of whole families of models."""
