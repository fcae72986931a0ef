"""Conversations with the session machine, as files.

Each ``*.jsonl`` begins with the machine's arguments; then each line is one entrance with its time and the effects it
gave.  ``python -m tests.golden.record`` writes them anew from ``scenarios``; read the difference before you keep it.
"""
