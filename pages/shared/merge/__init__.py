"""What only the Merge page shows."""
