"""What only the Models page shows."""
