"""The table is whole, and the picture in the docs is drawn from it."""

from __future__ import annotations

from pathlib import Path

from streamsrv.session.states import MOVES, OVER, TAKES_AUDIO, State, Trigger, diagram

DOCS = Path(__file__).parents[2] / "docs" / "architecture.md"


def test_every_state_is_reached_and_every_state_but_the_last_is_left() -> None:
    reached, left = set(MOVES.values()), {state for state, _ in MOVES}
    assert reached | {State.OPEN} == set(State)
    assert left == set(State) - OVER


def test_every_trigger_moves_something() -> None:
    assert {trigger for _, trigger in MOVES} == set(Trigger)


def test_a_newer_connection_wins_in_every_state_that_is_not_over() -> None:
    for state in set(State) - OVER:
        assert MOVES[state, Trigger.SUPERSEDED] is State.GONE


def test_what_takes_audio_can_be_finished_cut_and_drained() -> None:
    for state in TAKES_AUDIO:
        assert {MOVES[state, trigger] for trigger in (Trigger.FINISH, Trigger.CUT, Trigger.DRAIN)} == {
            State.ENDING,
            State.PARTED,
            State.LEAVING,
        }


def test_the_docs_show_this_table() -> None:
    assert diagram() in DOCS.read_text("utf-8")
