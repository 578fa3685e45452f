"""Show how far a command is."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

SECONDS = 10.0  # between two lines, where no terminal shows a bar


@contextlib.contextmanager
def progress(count: int | None, what: str = "images") -> Iterator[Callable[..., None]]:
    """Show how far it is: a bar on a terminal, else a line from time to time.

    Yields:
        what is told how many are done, and how many there are if that was not known before.
    """
    if sys.stderr.isatty():
        from rich import progress as bars
        from rich.console import Console

        columns = (*bars.Progress.get_default_columns(), bars.MofNCompleteColumn())
        with bars.Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(what, total=count)
            yield lambda done, of=count: bar.update(task, completed=done, total=of)
        return
    start = last = time.monotonic()

    def tell(done: int, of: int | None = count) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SECONDS:
            last = now
            all_of_them = f" of {of}" if of else ""
            rate = f"{done / (now - start):.2f} per second"
            print(f"{done}{all_of_them} {what}, {rate}", file=sys.stderr)

    yield tell
