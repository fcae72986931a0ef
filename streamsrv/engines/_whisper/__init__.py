"""The parts of the Whisper engine (``engines.whisper``)."""
