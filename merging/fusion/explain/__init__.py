"""Why merges are as good as they are."""
