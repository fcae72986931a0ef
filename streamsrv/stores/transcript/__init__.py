"""Transcripts for people and programs, made from what a store keeps.  Pure: no clock, no database.

``document`` merges the streams of an interview by wall time; ``to_json``, ``to_txt``, ``to_srt`` and ``to_vtt`` give
it the form that is asked for.
"""

from __future__ import annotations

from streamsrv.stores.transcript.clock import day_offset_ms, iso, to_wall_json
from streamsrv.stores.transcript.document import About, Document, Line, LineWord, Speaker, document
from streamsrv.stores.transcript.render import to_json, to_srt, to_txt, to_vtt

__all__ = [
    "About",
    "Document",
    "Line",
    "LineWord",
    "Speaker",
    "day_offset_ms",
    "document",
    "iso",
    "to_json",
    "to_srt",
    "to_txt",
    "to_vtt",
    "to_wall_json",
]
