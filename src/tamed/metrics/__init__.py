"""Metrics: shared memory for the values of workers' metrics, and merging them."""
