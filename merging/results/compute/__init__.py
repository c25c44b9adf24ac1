"""The compute service: jobs, workers, and the store of results. Knows no mathematics."""
