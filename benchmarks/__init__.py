"""Benchmarks: every figure a ratio to the limit, measured in the same run. `make bench` runs them all."""
