"""What was found: one frozen record per kind of result."""
