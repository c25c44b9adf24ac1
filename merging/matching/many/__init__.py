"""One order for many models."""
