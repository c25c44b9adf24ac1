"""Examples: the bundled data sets, and those that a person gives."""
