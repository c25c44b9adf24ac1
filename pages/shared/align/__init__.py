"""What only the Align page shows."""
