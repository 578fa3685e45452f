"""Have the next rows ready before they are asked for."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Row = TypeVar("Row")
END = object()


def ahead(rows: Generator[Row, None, None], number: int) -> Generator[Row, None, None]:
    """Go through rows in a thread of its own, at most `number` of them ahead of who takes them.

    What it raises is raised where its row would come. If no more is taken, it is closed.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        waiting = deque(thread.submit(next, rows, END) for _ in range(number))
        try:
            while (row := waiting.popleft().result()) is not END:
                waiting.append(thread.submit(next, rows, END))
                yield row  # type: ignore[misc]
        finally:
            for later in waiting:
                later.cancel()
            thread.submit(rows.close).result()
