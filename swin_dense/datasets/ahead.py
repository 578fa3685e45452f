"""Have the next rows ready before they are asked for."""

import contextlib
import queue
import threading
from collections.abc import Generator
from typing import Any, TypeVar

Row = TypeVar("Row")
END = object()
LOOK = 0.1  # seconds between two looks whether rows are still wanted
PATIENCE = 1.0  # seconds that a close waits for the row which is being made


def ahead(rows: Generator[Row, None, None], number: int) -> Generator[Row, None, None]:
    """Go through rows in a thread of its own, at most `number` of them ahead of who takes them.

    What it raises is raised where its row would come. If no more is taken, it is closed; a row that
    takes for ever, say of a server that does not answer, holds up nobody.
    """
    ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(number)
    unwanted = threading.Event()

    def hand(row: Any, error: BaseException | None = None) -> bool:
        while not unwanted.is_set():
            with contextlib.suppress(queue.Full):
                ready.put((row, error), timeout=LOOK)
                return True
        return False

    def work() -> None:
        try:
            with contextlib.closing(rows):
                for row in rows:
                    if not hand(row):
                        return
            hand(END)
        except BaseException as error:
            hand(END, error)

    # Not one that an interpreter waits for at its end.
    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            row, error = ready.get()
            if error is not None:
                raise error
            if row is END:
                return
            yield row
    finally:
        unwanted.set()
        if threading.current_thread() is not thread:  # the garbage collector may run there
            thread.join(PATIENCE)
