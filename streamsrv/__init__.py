"""streamsrv: live speech in, stored words out."""

__version__ = "0.1.0"
"""The one place the version is written; packaging reads it from here."""
