"""What it costs, measured: ``python -m benchmarks.NAME``."""
