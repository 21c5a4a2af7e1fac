"""Side-by-side ratios against peers and floors: `python -m benchmarks`."""
