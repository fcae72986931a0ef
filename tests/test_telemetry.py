"""Log lines: one event, one line, nothing secret, nothing said; numbers: closed labels, our names."""

from __future__ import annotations

import io
import json
import logging
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from streamsrv import telemetry
from streamsrv.errors import StoreUnavailable

NOON = 1_700_000_000.5
CANARY = "the-patient-said-canary"


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def capture(**options: object) -> io.StringIO:
    """Redirect the log into a text that is written at once."""
    stream = io.StringIO()
    telemetry.use(telemetry.Sink(stream, clock=lambda: NOON, threaded=False, **options))  # type: ignore[arg-type]
    return stream


def raised(failure: BaseException) -> BaseException:
    try:
        raise failure
    except BaseException as caught:
        return caught


def test_a_line_is_one_json_object_in_order() -> None:
    stream = capture()
    telemetry.logger("session").info("session.opened", interview="i-1", stream=3, resumed=False)
    assert stream.getvalue() == (
        '{"time":"2023-11-14T22:13:20.500Z","level":"info","event":"session.opened","room":"session",'
        '"interview":"i-1","stream":3,"resumed":false}\n'
    )


@given(st.text(), st.text())
def test_no_text_can_break_out_of_its_line(first: str, second: str) -> None:
    for form in (telemetry.to_json, telemetry.to_text):
        stream = capture(form=form)
        telemetry.logger("x").bind(interview=first).warning("x.y", peer=second)
        written = stream.getvalue()
        assert written.endswith("\n")
        assert written[:-1].isascii()
        assert written[:-1].isprintable()
        if form is telemetry.to_json and len(first) <= telemetry.VALUE_CHARACTERS:
            assert json.loads(written)["event"] == "x.y"


@pytest.mark.parametrize("name", ["token", "resume_token", "Authorization", "api_key", "api_keys", "cookie", "secret"])
def test_secret_fields_are_redacted(name: str) -> None:
    stream = capture()
    telemetry.logger("x").info("x.y", **{name: CANARY})
    assert CANARY not in stream.getvalue()
    assert "[redacted]" in stream.getvalue()


@pytest.mark.parametrize(
    "value",
    [
        f"/transcription/stream/a?resume={CANARY}",
        f"/x?a=1&token={CANARY}&b=2",
        f"Authorization: Bearer {CANARY}",
        f"Token {CANARY}",
    ],
)
def test_secrets_inside_values_are_cut_out(value: str) -> None:
    stream = capture()
    telemetry.logger("x").bind(url=value).info("x.y", path=value, error=value)
    assert CANARY not in stream.getvalue()


def test_spoken_words_are_withheld() -> None:
    stream = capture()
    telemetry.logger("x").info("x.y", text=CANARY, words=CANARY, transcript=CANARY)
    assert stream.getvalue().count("[withheld]") == 3
    assert CANARY not in stream.getvalue()


def test_long_values_are_cut() -> None:
    stream = capture()
    telemetry.logger("x").info("x.y", peer="a" * 10_000)
    assert len(json.loads(stream.getvalue())["peer"]) == telemetry.VALUE_CHARACTERS + 3


def test_a_foreign_exception_is_told_without_its_text() -> None:
    told = telemetry.describe(raised(ValueError(CANARY)))
    assert told == "ValueError"


def test_our_own_errors_are_quoted() -> None:
    told = telemetry.describe(raised(StoreUnavailable("the disk is full")))
    assert told == "StoreUnavailable (store_unavailable: the disk is full)"


def test_causes_are_told_in_order() -> None:
    try:
        try:
            raise OSError(28, CANARY)
        except OSError as cause:
            raise StoreUnavailable("the disk is full") from cause
    except StoreUnavailable as caught:
        told = telemetry.describe(caught)
    assert told == "StoreUnavailable (store_unavailable: the disk is full); from OSError[ENOSPC]"


def test_sqlite_tells_its_symbol() -> None:
    with closing(sqlite3.connect(":memory:")) as database, pytest.raises(sqlite3.OperationalError) as caught:
        database.execute(f'select "{CANARY}" from nowhere')
    assert telemetry.describe(caught.value) == "OperationalError[SQLITE_ERROR]"


def test_frames_are_ours_and_innermost_first() -> None:
    telemetry.use(telemetry.Sink(io.StringIO(), threaded=False, clock=lambda: float("nan")))
    with pytest.raises(ValueError, match="NaN") as caught:
        telemetry.logger("x").info("x.y")
    told = telemetry.describe(caught.value)
    assert told.startswith("ValueError at streamsrv/telemetry.py:")
    assert "test_telemetry" not in told
    # Logger.info calls Logger.log calls Sink.line, which stand in the file in the opposite order.
    lines = [int(place.rpartition(":")[2]) for place in told.split(" < ")]
    assert len(lines) == 3
    assert lines == sorted(lines)


def test_lines_below_the_level_are_not_made() -> None:
    stream = capture(level="warning")
    log = telemetry.logger("x")
    log.debug("a.b")
    log.info("a.b")
    assert stream.getvalue() == ""
    log.warning("a.b")
    log.error("a.b")
    assert stream.getvalue().count("\n") == 2


@pytest.mark.parametrize(
    ("chosen", "stream", "json_expected"),
    [
        ("auto", io.StringIO, True),
        ("auto", Screen, False),
        ("json", Screen, True),
        ("text", io.StringIO, False),
    ],
)
def test_auto_is_json_unless_a_person_watches(
    chosen: telemetry.Format, stream: type[io.StringIO], json_expected: bool
) -> None:
    target = stream()
    sink = telemetry.configure(format=chosen, stream=target)
    telemetry.logger("x").info("x.y")
    sink.close()
    assert target.getvalue().startswith("{") == json_expected


def test_libraries_are_quoted_by_template_only() -> None:
    stream = io.StringIO()
    sink = telemetry.configure(stream=stream)
    library = logging.getLogger("aiohttp.test")
    library.info("not serious %s", CANARY)
    library.error("Error handling %s\n%s", CANARY, CANARY, exc_info=raised(ValueError(CANARY)))
    library.error(f"Task exception\nfuture: {CANARY}")  # what asyncio does
    sink.close()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["template"] for line in lines] == ["Error handling %s", "Task exception"]
    assert lines[0]["error"] == "ValueError"
    assert CANARY not in stream.getvalue()


def test_configuring_twice_does_not_double_the_lines() -> None:
    telemetry.configure(stream=io.StringIO()).close()
    stream = io.StringIO()
    sink = telemetry.configure(stream=stream)
    logging.getLogger("some.library").warning("once")
    sink.close()
    assert stream.getvalue().count("\n") == 1


class Stuck(io.StringIO):
    """A reader that takes nothing until told."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = threading.Event()

    def write(self, text: str) -> int:
        self.reading.wait()
        return super().write(text)


def test_a_stuck_reader_costs_lines_never_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "LINES_WAITING", 4)
    stream = Stuck()
    sink = telemetry.Sink(stream)
    for number in range(50):
        sink.put(sink.line("x", "info", "x.y") | {"number": number})
    stream.reading.set()
    sink.close()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    kept = [line["number"] for line in lines if line["event"] == "x.y"]
    assert kept == sorted(kept)
    assert 4 <= len(kept) <= 5
    assert sum(line["lines"] for line in lines if line["event"] == "log.dropped") == 50 - len(kept)


FULL_FOR_A_WHILE = """
import resource, signal, time
from streamsrv import telemetry
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log, sink = telemetry.logger("test"), telemetry.configure(format="json")
def tell(count):
    for number in range(count):
        log.info("line", number=number)
def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
limit(1_000)
tell(200)
time.sleep(0.2)  # a thread writes them
limit(resource.RLIM_INFINITY)
tell(3)
sink.close()
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_disk_that_is_full_for_a_while_costs_whole_lines(tmp_path: Path, unbuffered: str) -> None:
    """Row 63: with PYTHONUNBUFFERED, too, as containers have it."""
    with (tmp_path / "log").open("w") as log:
        environ = os.environ | {"PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run([sys.executable, "-c", FULL_FOR_A_WHILE], stdout=log, env=environ, check=False)
    assert done.returncode == 0
    told = [json.loads(line)["number"] for line in (tmp_path / "log").read_text().splitlines()]
    assert told[-3:] == [0, 1, 2], "it goes on as soon as there is room"
    assert 3 < len(told) < 203, "there was too little room for all"


def test_a_reader_that_is_gone_harms_nobody() -> None:
    stream = io.StringIO()
    stream.close()
    sink = telemetry.Sink(stream)
    sink.put(sink.line("x", "info", "x.y"))
    sink.close()


class TestMetrics:
    LABELS: ClassVar = {"outcome", "kind", "cause", "op", "code", "version", "python", "le"}

    def test_the_registry_holds_what_operators_were_promised(self) -> None:
        page = telemetry.Metrics("1.2.3").render().decode()
        for name in (
            "streamsrv_sessions ",
            "streamsrv_audio_seconds_total ",
            "streamsrv_partials_total ",
            "streamsrv_final_latency_seconds_count ",
            "streamsrv_endpoint_seconds_count ",
            "streamsrv_partial_lag_seconds_count ",
            "streamsrv_engine_replays_total ",
            "streamsrv_degraded ",
            "streamsrv_loop_stall_seconds_count ",
            "process_resident_memory_bytes ",
        ):
            assert f"\n{name}" in page, name
        assert 'version="1.2.3"} 1.0' in page

    def test_labels_come_from_closed_lists(self) -> None:
        metrics = telemetry.Metrics("1.2.3")
        metrics.sessions_ended.labels("finished").inc()
        metrics.messages.labels("audio").inc()
        metrics.finals.labels("vad").inc()
        metrics.store.labels("keep_final").observe(0.001)
        metrics.store_errors.inc()
        metrics.refused.labels("full").inc()
        families = list(text_string_to_metric_families(metrics.render().decode()))
        ours = [family for family in families if family.name.startswith("streamsrv_")]
        assert {label for family in ours for sample in family.samples for label in sample.labels} == self.LABELS
        assert all(family.documentation for family in ours)

    def test_two_servers_in_one_process_do_not_share(self) -> None:
        first, second = telemetry.Metrics("1"), telemetry.Metrics("1")
        first.partials.inc()
        assert b"streamsrv_partials_total 0.0" in second.render()


def test_telemetry_imports_nothing_of_ours() -> None:
    assert "streamsrv" not in {
        word
        for line in Path(telemetry.__file__).read_text("utf-8").splitlines()
        if line.startswith(("import ", "from "))
        for word in line.replace(".", " ").split()
    }
