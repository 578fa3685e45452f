"""Watch one process of a run from beside it, and the others through their watchers.

A program of its own, of the standard library alone, which `watched.py` starts: a process that is
stopped, or long in one call of C, cannot say that it lives. The watcher of rank 0 keeps a
connection to each other one. It names the first process that is lost; all others end with it.

The watched process writes lines to the standard input: "wait SECONDS", "keep TOKEN here|anywhere"
(rank 0; the answer is the port), "meet TOKEN HOST PORT" (the others; the answer is a line, once it
is done), and before its last steps "end" or, where it says itself what went wrong, "failed".
Watchers write lines to each other: "hello TOKEN PROCESS WATCHER SPACE NAME" (two numbers and
where they are counted: a container has its own), ".", "lost TEXT", "quiet TEXT" and "end".
"""

import contextlib
import os
import selectors
import signal
import socket
import sys
import time

TICK = 0.5  # seconds between two looks; also between two signs of life
LONGEST = 2000  # bytes of a line


class Line:
    """A connection to another watcher, by lines; what cannot be sent at once is not sent."""

    def __init__(self, connection: socket.socket):
        connection.setblocking(False)
        self.connection = connection
        self.name = ""  # of the other's process, once it has said its hello
        self.processes: list[int] = []  # it and its watcher, if they can be killed from here
        self.silent = 0.0  # seconds without a sign of life
        self._rest = b""

    def say(self, text: str) -> None:
        """Send a line."""
        with contextlib.suppress(OSError):
            self.connection.send(text.replace("\n", " ").encode() + b"\n")

    def heard(self) -> list[str] | None:
        """Return the lines that came, None if the other side is gone."""
        try:
            came = self.connection.recv(1 << 14)
        except BlockingIOError:
            return []
        except OSError:
            return None
        *lines, self._rest = (self._rest + came).split(b"\n")
        if not came or len(self._rest) > LONGEST:
            return None
        self.silent = 0.0
        return [line.decode(errors="replace") for line in lines]


class Watcher:
    """Look at one process twice a second, and listen to the watchers of the others.

    Args:
        patience: seconds that a process may be stopped, or a watcher silent.
        grace: seconds that a process has to end by itself after another one was lost.
    """

    def __init__(self, rank: int, process: int, patience: float, grace: float):
        self.process, self.patience, self.grace = process, patience, grace
        self.name = f"process {process} of rank {rank} on {socket.gethostname()}"
        self.lines: list[Line] = []
        self.keeps = rank == 0
        self.token = ""
        self.stopped = 0.0  # seconds in which the process was seen stopped
        self.left: float | None = None  # seconds, once another process was lost
        self.named = False  # that process, to the user
        self.told = False  # that the process is about to end
        self.done = False
        self.events = selectors.DefaultSelector()
        self.events.register(0, selectors.EVENT_READ, self._told)
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):  # an older kernel; the next look tells
                self.events.register(os.pidfd_open(process), selectors.EVENT_READ, self._gone)

    def run(self) -> None:
        """Watch until the process has ended. Time in which this program is stopped counts not."""
        last = time.monotonic()
        while not self.done:
            for key, _ in self.events.select(max(0.0, last + TICK - time.monotonic())):
                if not self.done:
                    key.data()
            passed = time.monotonic() - last
            if not self.done and passed >= TICK:
                self._look(min(passed, 4 * TICK))
                last += passed
        if self.left is not None:
            time.sleep(TICK / 2)  # a connection closed at once may take with it what was said

    def _look(self, passed: float) -> None:
        if os.getppid() != self.process:
            self._gone()
            return
        self.stopped = self.stopped + passed if is_stopped(self.process) else 0.0
        if self.stopped >= self.patience:
            self._lost(f"{self.name} was stopped (SIGSTOP) for {self.patience:g} s and is killed")
            self._kill()
            return
        for line in self.lines:
            line.say(".")
            line.silent += passed
        for line in [line for line in self.lines if line.silent >= self.patience]:
            self._forget(line)
            if line.name:
                self._lost(f"{line.name} has not answered for {self.patience:g} s")
            for process in filter(is_stopped, line.processes):
                kill(process)
        if self.left is not None:
            self.left -= passed
            if self.left <= 0:
                say(f"{self.name} still waits {self.grace:g} s later and is killed")
                self._kill()

    def _gone(self) -> None:
        """End with the process; one that torchrun had end, as another had, is not lost."""
        if not self.told:
            number = signal_that_ended(self.process)
            by = f" (signal {number})" if number else ""
            ends = not self.lines or self.left is not None  # or has not yet begun
            asked = number == signal.SIGTERM and ends
            self._lost(f"{self.name} was killed or crashed{by}", quiet=asked)
        self.done = True

    def _kill(self) -> None:
        kill(self.process)
        self.done = True

    def _told(self) -> None:
        """Do what the process says."""
        came = os.read(0, LONGEST).decode()
        if not came:  # closed; how the process ends is seen elsewhere
            self.events.unregister(0)
        for line in came.splitlines():
            word, *rest = line.split()
            if word == "wait":
                self.patience = float(rest[0])
            elif word == "keep":
                self._keep(*rest)
            elif word == "meet":
                self._meet(*rest)
                print(flush=True)
            else:
                if word == "failed":
                    self._lost(f"{self.name} has failed", quiet=True)
                self.told = True
                for other in self.lines:
                    other.say("end")

    def _keep(self, token: str, where: str) -> None:
        """Listen for the others."""
        self.token = token
        if where == "here":
            server = socket.create_server(("127.0.0.1", 0))
        elif socket.has_dualstack_ipv6():
            server = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        else:
            server = socket.create_server(("", 0))
        server.setblocking(False)

        def accept() -> None:
            with contextlib.suppress(OSError):
                self._listen(Line(server.accept()[0]))

        self.events.register(server, selectors.EVENT_READ, accept)
        print(server.getsockname()[1], flush=True)

    def _meet(self, token: str, host: str, port: str) -> None:
        """Connect to the watcher of rank 0."""
        try:
            line = Line(socket.create_connection((host, int(port)), timeout=10))
        except OSError as error:
            say(
                f"{self.name} does not reach rank 0 at {host}, port {port} ({error}): a process "
                "that is lost on another machine is not noticed"
            )
            return
        self.token = token
        self._listen(line)

    def _listen(self, line: Line) -> None:
        self.lines.append(line)
        if not self.keeps:  # whose token a stranger must not learn
            line.say(self._hello())
        self.events.register(line.connection, selectors.EVENT_READ, lambda: self._hear(line))

    def _forget(self, line: Line) -> None:
        self.lines.remove(line)
        self.events.unregister(line.connection)
        line.connection.close()

    def _hear(self, line: Line) -> None:
        """Do what another watcher says; one that only ends is no sign that its process has."""
        lines = line.heard()
        for text in lines or []:
            word, _, rest = text.partition(" ")
            token, *who = rest.split(" ", 4)
            if word == "hello" and token == self.token and len(who) == 4:
                line.name = who[3]
                line.processes = [int(who[0]), int(who[1])] if who[2] == space() else []
                if self.keeps:
                    line.say(self._hello())
            elif not line.name:
                lines = None
                break
            elif word in ("lost", "quiet"):
                self._lost(rest, quiet=word == "quiet")
            elif word == "end":
                lines = None
                break
        if lines is None and line in self.lines:
            self._forget(line)

    def _hello(self) -> str:
        return f"hello {self.token} {self.process} {os.getpid()} {space()} {self.name}"

    def _lost(self, text: str, quiet: bool = False) -> None:
        """Name the first process that is lost, and have all others end.

        Args:
            quiet: the process speaks itself. It may do so only because it misses another one,
                which is named as soon as that is known.
        """
        first = self.left is None
        if first:
            self.left = self.grace
        if self.named or (quiet and not first):
            return
        self.named = not quiet
        alone = not self.keeps and not self.lines
        if not quiet and (self.keeps or alone):
            say(f"{text}; the run ends, and goes on from its last checkpoint when it is resumed")
        for line in self.lines:
            line.say(f"{'quiet' if quiet else 'lost'} {text}")


def is_stopped(process: int) -> bool:
    """Say whether a process was stopped by a signal; only Linux tells."""
    return status(process)[0] == b"T"


def status(process: int) -> list[bytes]:
    """Return what Linux knows of a process, from its state on: proc(5), stat."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return [b"?"]


def signal_that_ended(process: int) -> int:
    """Return the signal that a process has ended by, 0 if by none or if it cannot be known.

    Linux tells until the one that started it has taken note.
    """
    fields = status(process)
    try:
        return int(fields[49]) & 0x7F if fields[0] == b"Z" else 0
    except IndexError:
        return 0


def space() -> str:
    """Return what two processes have in common that call a third by the same number."""
    try:
        return f"{socket.gethostname()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"process/{os.getpid()}"


def kill(process: int) -> None:
    """Kill a process, if it is still there."""
    with contextlib.suppress(OSError):
        os.kill(process, signal.SIGKILL)


def say(text: str) -> None:
    """Print a line for the user."""
    with contextlib.suppress(OSError):
        os.write(2, f"error: {text}.\n".encode())


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # are for the process, with which this one ends
    Watcher(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])).run()
