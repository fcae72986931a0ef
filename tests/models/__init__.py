"""Whisper models without a download: made by numpy (``tone``, ``sized``) or trained and small (``digits/``)."""
