"""Metrics: memory in which workers keep the values of their metrics, and the sum of what is in it."""
