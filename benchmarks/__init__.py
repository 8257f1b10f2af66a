"""Timings, run by `make bench`; results with their machine and versions lie in benchmarks/results."""
