"""What can go wrong in a run, for how long and how often."""

from __future__ import annotations

from typing import Literal, TypeAlias

Shape: TypeAlias = Literal["alone", "pair"]
"""One node on SQLite; or two nodes behind a balancer on MongoDB, with Redis, Kafka and a webhook."""
Spoken: TypeAlias = Literal["tones", "digits"]
FileKind: TypeAlias = Literal["WAV", "FLAC"]
ViewerKind: TypeAlias = Literal["socket", "events"]
"""By WebSocket or by Server-Sent Events."""
LineHarm: TypeAlias = Literal["cut", "close", "half_up", "half_down", "stall", "hole", "throttle", "delay", "refuse"]
NodeHarm: TypeAlias = Literal["kill", "term", "freeze", "disk_full"]
LoneHarm: TypeAlias = Literal["garble", "age"]

SHAPES: tuple[Shape, ...] = ("alone", "pair")
MOST_VOICES = 8
FASTER = 13.0
"""How much faster clocks run: the patience of speakers and servers is made for minutes, a run takes seconds.  What is
made for seconds is as in earnest: pauses between tries at a store or a sink, time-outs of requests, drains."""
DIGITS_EVERY = 7
"""One run of so many speaks recorded digits; odd, so that both shapes do."""
LINE_HARMS: dict[LineHarm, tuple[float, float]] = {
    "cut": (0, 0),
    "close": (0, 0),
    "half_up": (0, 0),
    "half_down": (0, 0),
    "stall": (0.2, 2.0),
    "hole": (0, 0),
    "throttle": (0.5, 2.0),
    "delay": (0.5, 2.0),
    "refuse": (0.2, 1.5),
}
"""What can happen to a speaker's line, and for how long at least and at most, in seconds."""
NODE_HARMS: dict[NodeHarm, tuple[float, float]] = {
    "kill": (0.0, 1.0),
    "term": (0.0, 1.0),
    "freeze": (0.2, 2.0),
    "disk_full": (0.5, 2.5),
}
"""What can happen to a node; after ``kill`` and ``term`` it stays away for so long."""
LONE_HARMS: dict[LoneHarm, tuple[float, float]] = {"garble": (0, 0), "age": (0, 0)}
"""What can happen to a node that is alone: its database is damaged, or from a later release, while it is down (row
68)."""
CLOCK_HARMS: dict[str, tuple[float, float]] = {"ahead": (0.5, 4.0), "behind": (0.5, 4.0)}
"""The wall clock of a node, alone or of two, jumps by an hour, and back (row 65)."""
ENDS = frozenset({"kill", "term", "garble", "age"})
"""What ends a process."""
ENDS_SOON = 0.8
"""Share of files that are sent just before that."""
LONE_EVERY = 3
"""Of the runs of one node, one of so many has one of these; and of the others, one of so many a webhook that redirects
(row 39)."""
AWAY: tuple[float, float] = (0.3, 60.0 / FASTER)
"""Outages of services: up to a minute on the fast clock; short ones come more often."""
SPOKEN_WITHIN_S = 6.5
"""Who has much to say speaks faster: a run has 15 s, and starts, ends and waits for what is under way besides."""
OVER_BY_S = 6.5
"""Faults begin early enough to be over by then.  What comes after one another in one place is shorter where there is no
time for all of it."""
TAKES_S: dict[str, float] = {"kafka-kill": 6.0, "kill": 0.8, "stop": 0.8, "term": 1.2, "garble": 2.0, "age": 2.0}
"""What a fault takes besides the time that it lasts: ending and starting a process."""
SERVICE_HARMS: dict[str, tuple[str, ...]] = {
    "mongo": ("kill", "stop", "freeze", "cut", "stall", "refuse", "delay"),
    "redis": ("kill", "stop", "freeze", "cut", "stall", "refuse", "flush"),
    "redis_streams": ("kill", "freeze", "cut", "stall", "refuse"),
    "kafka": ("freeze", "cut", "stall", "refuse", "delay"),
    "webhook": ("away", "hang", "lose_answers", "cut", "stall", "refuse", "delay"),
}
"""What can happen to each service, itself or the line to it."""
REDIS_HARMS: dict[str, tuple[str, ...]] = {"redis": ("full", "replica"), "redis_streams": ("full",)}
"""Its memory is full, or it is made a replica, which takes no writes."""
DISK_HARMS: dict[str, tuple[float, float]] = {"log_full": (0.5, 2.5), "tmp_full": (0.5, 2.5)}
"""The disk under a node's log, or under its ``/tmp``, is full (row 63)."""
RIVALS: dict[str, int] = {"usurp": 1, "crowd": 10}
"""So many come at once with a speaker's own token and take its stream, which it takes back (row 16)."""
CONSUMERS: dict[str, str] = {"redis_streams": "kill", "kafka": "rewind"}
"""What happens to who reads a sink (row 58): it dies at any instant and goes on where it was, or begins anew."""
WAYS = (0, 0, 1, 1, 2)
"""How often the lines from the balancer to the nodes are harmed."""
SELDOM_EVERY = 4
"""One run of so many has one of a kind of the rarer ones."""
LEAVES_FOR: tuple[float, float] = (0.3, 3.0)
LEAVES_FOR_GOOD: tuple[float, float] = (60.0 / FASTER + 0.7, 60.0 / FASTER + 1.0)
"""How long somebody leaves a stream (row 19): it is found again; or gone, on a lone node, which keeps it for a minute
of the fast clock."""
LATER = 0.5
"""Share of runs that have one of these, or on a lone node one of the webhook's."""
MOST_KNOCKS = 2
"""Somebody comes with a wrong token so many times."""
KAFKA_KILLED_EVERY = 13
"""Kafka takes seconds to come back, of which a run has few: it is killed in one run of so many."""
STRICT_EVERY = 4
"""One run of so many has nodes that may write nowhere but to their data, and are not root (row 64)."""
