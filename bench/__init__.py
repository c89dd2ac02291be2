"""Measurements of Tamed beside its peers. `make bench` runs them; see docs/benchmarks.md."""
