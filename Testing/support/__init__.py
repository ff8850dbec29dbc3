"""What tests, trust runs and benchmarks share."""
