"""The parts of ``runtime.spool``: how a line is written, one file, and the numbers."""
