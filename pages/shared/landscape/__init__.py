"""What only the Landscape page shows."""
