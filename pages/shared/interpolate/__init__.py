"""What only the Interpolate page shows."""
