"""Events as text: what is stable, what fits, what a terminal must never be told by what somebody said."""

from __future__ import annotations

import re

import pytest

from streamsrv.cli.captions import CLEAR, DIM, PLAIN, Captions, note, printable, split
from streamsrv.client import (
    Ack,
    AnyMessage,
    AudioGap,
    Degraded,
    Failed,
    Final,
    GoAway,
    Partial,
    Ready,
    Reconnecting,
    Warned,
)


def partial(text: str, stable: int, channel: int = 0) -> Partial:
    return Partial(segment=0, text=text, stable_chars=stable, channel=channel)


def final(text: str, channel: int = 0) -> Final:
    return Final(segment=0, text=text, channel=channel)


def wide(columns: int = 80, *, multichannel: bool = False) -> Captions:
    return Captions(lambda: columns, multichannel=multichannel)


def plain(shown: str) -> str:
    return re.sub(r"\x1b\[\d*[mK]|\r", "", shown)


def test_stable_words_are_plain_and_the_others_dim() -> None:
    assert wide().show(partial("and so my", 6)) == f"{CLEAR}and so{DIM} my{PLAIN}"
    assert wide().show(partial("and so", 6)) == f"{CLEAR}and so"
    assert wide().show(partial("and", 0)) == f"{CLEAR}{DIM}and{PLAIN}"


def test_a_final_takes_the_place_of_its_partial() -> None:
    captions = wide()
    captions.show(partial("and so", 6))
    assert captions.show(final("and so my")) == f"{CLEAR}and so my\n"
    assert captions.show(final("again")) == "again\n"


def test_an_empty_final_takes_its_partial_away() -> None:
    captions = wide()
    captions.show(partial("hm", 0))
    assert captions.show(final("")) == CLEAR
    assert captions.show(final("")) == ""


def test_without_a_terminal_there_are_only_finals() -> None:
    captions = Captions(None)
    assert captions.show(partial("and so", 6)) == ""
    assert captions.show(final("and so")) == "and so\n"
    assert captions.show(final("")) == ""
    assert captions.around() == ("", "")


def test_no_color_means_no_dim() -> None:
    assert Captions(lambda: 80, dim=False).show(partial("and so my", 6)) == f"{CLEAR}and so my"


def test_channels_are_named_where_there_are_several() -> None:
    captions = wide(multichannel=True)
    assert captions.show(partial("a b", 1, channel=1)) == f"{CLEAR}[1] a{DIM} b{PLAIN}"
    assert captions.show(final("yes", channel=2)) == f"{CLEAR}[2] yes\n"


@pytest.mark.parametrize(
    ("text", "stable", "clusters", "whole"),
    [
        ("abc", 2, ["a", "b", "c"], 2),
        ("abc", 9, ["a", "b", "c"], 3),
        ("", 0, [], 0),
        ("x\u0323\u0302y", 1, ["x\u0323\u0302", "y"], 0),  # a mark may still be taken back: its base stays open
        ("x\u0323\u0302y", 2, ["x\u0323\u0302", "y"], 0),
        ("x\u0323\u0302y", 3, ["x\u0323\u0302", "y"], 1),
        ("\U0001f469y", 1, ["\U0001f469", "y"], 1),  # one code point, although two units in UTF-16
        ("किताब", 2, ["कि", "ता", "ब"], 1),
        ("\u0301a", 1, ["\u0301", "a"], 1),
    ],
)
def test_stable_counts_code_points_and_never_splits_a_character(
    text: str, stable: int, clusters: list[str], whole: int
) -> None:
    assert split(text, stable) == (clusters, whole)


def test_stable_is_counted_in_nfc() -> None:
    decomposed = "cafe\u0301 au"  # NFC has one code point less
    assert wide().show(partial(decomposed, 4)) == f"{CLEAR}caf\u00e9{DIM} au{PLAIN}"


@pytest.mark.parametrize("columns", [5, 10, 11, 12, 20])
@pytest.mark.parametrize("text", ["0123456789", "日本語のテキスト", "x\u0323\u0302" * 12, "mixed 日本 x\u0323\u0302y"])
def test_the_live_line_never_wraps_and_shows_the_newest_words(columns: int, text: str) -> None:
    shown = plain(wide(columns).show(partial(text, 3)))
    cells = sum(0 if ord(c) in (0x323, 0x302) else 2 if ord(c) > 0x3000 else 1 for c in shown)
    assert cells <= columns - 1
    assert text.endswith(shown.lstrip("…"))
    assert shown.startswith("…") == (shown != text)


def test_what_is_cut_off_on_the_left_counts_as_stable_no_more() -> None:
    assert wide(6).show(partial("abcdefgh", 6)) == f"{CLEAR}…ef{DIM}gh{PLAIN}"
    assert wide(6).show(partial("abcdefgh", 2)) == f"{CLEAR}{DIM}…efgh{PLAIN}"


def test_nothing_that_was_said_commands_the_terminal() -> None:
    evil = "a\x1b[2Jb\nc\rd\x07e\u202ef\u2028g\x9bh"
    assert printable(evil) == "a [2Jb c d e f g h"
    assert wide().show(final(evil)) == "a [2Jb c d e f g h\n"
    assert "\x1b[2J" not in wide().show(partial(evil, 3))
    assert "\x07" not in note(Failed(code="x", message="a\x07b"))


def test_remarks_leave_the_live_line_where_it_was() -> None:
    captions = wide()
    assert captions.around() == ("", "")
    captions.show(partial("and so", 6))
    assert captions.around() == (CLEAR, "and so")


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (
            Reconnecting(attempt=1, pause_s=0.25, why="closed with 1012", unacknowledged_s=1.5),
            "connection lost (closed with 1012), next attempt in 0.2 s; 1.5 s of audio are kept",
        ),
        (Ready(resume_token="t"), "connected again, nothing is lost"),
        (Degraded(reason="store", active=True, message="m"), "degraded: m"),
        (Degraded(reason="store", active=False, message="m"), "no longer degraded: m"),
        (Warned(code="c", message="m"), "warning: m"),
        (AudioGap(start_ms=5000, stop_ms=5100), "warning: 100 ms of audio at 5000 ms did not arrive"),
        (GoAway(within_ms=1), "the server is going away; the stream goes on with its successor"),
        (Failed(code="c", message="m"), "the server says: m"),
        (Ack(samples=1), ""),
    ],
)
def test_remarks(event: AnyMessage, said: str) -> None:
    assert note(event, again=True) == said
