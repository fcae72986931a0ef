"""The race against other open servers, run for real on one machine: ``python -m benchmarks.peers``."""
