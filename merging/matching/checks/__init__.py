"""Two models examined before they are matched, and what matching will take."""
