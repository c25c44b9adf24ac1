"""What the methods search with: similarities, assignments, descents."""
