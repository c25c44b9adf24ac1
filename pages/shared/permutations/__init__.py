"""What only the Permutations page shows."""
