"""Real Redis, MongoDB protocol and Kafka servers on loopback ports: started, paused, killed and started again.

Each keeps its data in a folder of its own and its port for life: what ``start`` brings back after ``kill`` or ``stop``
is the same server to its clients.  The methods block for as long as they wait; on an event loop they belong into
``asyncio.to_thread``, but for ``launch``: a server ends with the thread that launched it.  What they run is installed
by ``scripts/install-services``; nothing here is skipped when it is missing.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

READY_WITHIN_S = 60.0
"""How long a server may take to start on a busy machine."""
STOPPED_WITHIN_S = 30.0
"""How long a server may take to stop after SIGTERM; then it is a failure, and the server is killed."""
SERVICES = Path(__file__).parents[2] / "build" / "services"
STAND_IN = SERVICES / "jars" / "stand-in.jar"
_archive_flag = "SharedArchiveFile"
HOST = "127.0.0.1"
MORTAL = ("setpriv", "--pdeathsig", "KILL", "--")
"""Before a command: whose parent is killed, or the thread that started it ends, ends as well."""


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def java(main: str, *arguments: str, heap_mb: int, logs: str = "") -> list[str]:
    """A command that runs a class of the installed ones; quick to start, small, quiet but for the class ``logs``."""
    assert STAND_IN.exists(), "the Java services are not installed: run scripts/install-services"
    return [
        "java",
        f"-Xmx{heap_mb}m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        f"-XX:{_archive_flag}={SERVICES / main}.jsa",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        *([f"-Dorg.slf4j.simpleLogger.log.{logs}=info"] if logs else []),
        "-cp",
        f"{SERVICES / 'jars'}/*",
        main,
        *arguments,
    ]


class Server:
    """A server process; ``with`` kills it at the end.

    Args:
        folder: keeps its data and its log; made when missing.
        port: to listen on; 0 takes a free one.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder = folder
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        """Where clients find it."""
        raise NotImplementedError

    @property
    def log(self) -> Path:
        """What it said since it was started last."""
        return self.folder / "server.log"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server runs not"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Also while it is paused."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start it, on the data that is there, and wait until it is ready."""
        self.launch()
        self.wait_ready()
        return self

    def launch(self) -> None:
        """Start it without waiting."""
        assert not self.running, "the server runs already"
        self.prepare()
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*MORTAL, *self.command()], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        atexit.register(self.kill)

    def wait_ready(self) -> None:
        """Wait until clients are served."""
        end = time.monotonic() + READY_WITHIN_S
        while not self.ready():
            assert self.running, f"{self.command()[0]} ended at once: {self.log.read_text('utf-8', 'replace')[-2_000:]}"
            assert time.monotonic() < end, f"not ready: {self.log.read_text('utf-8', 'replace')[-2_000:]}"
            time.sleep(0.02)

    def kill(self) -> None:
        """End it at once, as a crash does; safe when it does not run."""
        atexit.unregister(self.kill)
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Let it end in order."""
        assert self._process is not None, "the server runs not"
        self.resume()
        self._process.terminate()
        try:
            self._process.wait(STOPPED_WITHIN_S)
        finally:
            self.kill()

    def pause(self) -> None:
        """Let it hang: its sockets stay open and nobody answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """After ``pause``."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "the server runs not"
        self._process.send_signal(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    # --- what each kind of server says of itself --------------------------------------------------------------------

    def prepare(self) -> None:
        """Make what it needs before each start."""

    def command(self) -> list[str]:
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether clients are served."""
        try:
            socket.create_connection((HOST, self.port), timeout=1.0).close()
        except OSError:
            return False
        return True


class RedisServer(Server):
    """Debian's Redis; what it acknowledged survives SIGKILL."""

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def command(self) -> list[str]:
        program = shutil.which("redis-server")
        assert program, "Redis is not installed: run scripts/install-services"
        where = ["--bind", HOST, "--port", str(self.port), "--dir", str(self.folder)]
        return [program, *where, "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]

    def ready(self) -> bool:
        """It answers ``LOADING`` while it reads its data."""
        try:
            with socket.create_connection((HOST, self.port), timeout=1.0) as peer:
                peer.sendall(b"PING\r\n")
                return peer.recv(64).startswith(b"+PONG")
        except OSError:
            return False


class Mongo(Server):
    """A MongoDB that a test may stop, pause and kill, with a database of the test's own."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        super().__init__(folder, port)
        self.database = f"streamsrv_test_{secrets.token_hex(6)}"

    def forget(self, database: str) -> None:
        """Drop a database, where it would outlive the server."""


class MongoServer(Mongo):
    """A server that speaks MongoDB's protocol (java/MongoStandIn.java); what it acknowledged survives SIGKILL.

    No sessions, no transactions, no change streams.
    """

    @property
    def url(self) -> str:
        return f"mongodb://{HOST}:{self.port}/"

    def command(self) -> list[str]:
        return java("MongoStandIn", HOST, str(self.port), str(self.folder / "data.mv"), heap_mb=256)


class MongoLine(Mongo):
    """The server that ``MONGO_URL`` names, behind a line that is stopped, paused and killed in its place.

    Clients see the same: refused, unanswered, broken off.  What is on its way when the line dies may be done.

    Args:
        named: one host, without TLS, whose certificate would name it.
    """

    def __init__(self, folder: Path, named: str, port: int = 0) -> None:
        super().__init__(folder, port)
        self._named = urlsplit(named)
        assert self._named.scheme == "mongodb", f"MONGO_URL is no mongodb://: {self._named.scheme}"
        assert "," not in self._named.netloc, "MONGO_URL names several hosts: the tests cut off one"

    @property
    def url(self) -> str:
        user, at, _ = self._named.netloc.rpartition("@")
        query = f"{self._named.query}&directConnection=true".lstrip("&")
        near = self._named._replace(netloc=f"{user}{at}{HOST}:{self.port}", path=self._named.path or "/", query=query)
        return near.geturl()

    def command(self) -> list[str]:
        target = (self._named.hostname or HOST, str(self._named.port or 27_017))
        return [sys.executable, "-m", "tests.services.line_process", str(self.port), *target]

    def forget(self, database: str) -> None:
        from pymongo import MongoClient

        with MongoClient[dict[str, object]](self._named.geturl()) as client:
            client.drop_database(database)


def mongo_server(folder: Path, port: int = 0) -> Mongo:
    """A server to do harm to: the one ``MONGO_URL`` names, behind a line, or else one of its own."""
    named = os.environ.get("MONGO_URL")
    return MongoLine(folder, named, port) if named else MongoServer(folder, port)


class KafkaServer(Server):
    """Apache Kafka, one node in KRaft mode: broker and controller in one process; topics are made when first used."""

    CLUSTER = "c3RyZWFtc3J2LXRlc3RzIQ"
    """Any 16 bytes, in base64."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        super().__init__(folder, port)
        self.controller_port = free_port()

    @property
    def url(self) -> str:
        """As clients call it: the bootstrap servers."""
        return f"{HOST}:{self.port}"

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def prepare(self) -> None:
        """Write the settings; format the data folder once."""
        self._properties.write_text("\n".join(f"{key}={value}" for key, value in self._settings().items()), "utf-8")
        if (self.folder / "data" / "meta.properties").exists():
            return
        said = subprocess.run(
            java("kafka.tools.StorageTool", *self._format(), heap_mb=128), capture_output=True, text=True
        )
        assert said.returncode == 0, said.stdout + said.stderr

    def _format(self) -> tuple[str, ...]:
        return ("format", "-t", self.CLUSTER, "-c", str(self._properties))

    def command(self) -> list[str]:
        return java("kafka.Kafka", str(self._properties), heap_mb=384, logs="kafka.server.KafkaRaftServer")

    def ready(self) -> bool:
        """Its port opens before it serves."""
        return "Kafka Server started" in self.log.read_text("utf-8", "replace")

    def _settings(self) -> dict[str, object]:
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{HOST}:{self.controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{HOST}:{self.port},CONTROLLER://{HOST}:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{self.port}",
            "log.dirs": self.folder / "data",
            "num.partitions": 4,
            "num.network.threads": 2,
            "num.io.threads": 2,
            "background.threads": 2,
            "log.cleaner.dedupe.buffer.size": 4 * 1_048_576,
            "offsets.topic.num.partitions": 2,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.num.partitions": 2,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            # One that was killed is let in again after this; the default is 9 s.
            "broker.session.timeout.ms": 2_000,
            "broker.heartbeat.interval.ms": 500,
        }


def _archive() -> None:
    """Keep the classes that the Java services load, ready for use: from then on they start in half the time."""
    global _archive_flag
    _archive_flag = "ArchiveClassesAtExit"
    for kind in (KafkaServer, MongoServer):
        with tempfile.TemporaryDirectory() as folder, kind(Path(folder)) as server:
            server.start().stop()


if __name__ == "__main__":
    _archive()
