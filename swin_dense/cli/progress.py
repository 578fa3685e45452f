"""Show how far a command is."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

SECONDS = 10.0  # between two lines, where no terminal shows a bar


@contextlib.contextmanager
def progress(count: int | None) -> Iterator[Callable[[int], None]]:
    """Show how far it is: a bar on a terminal, else a line from time to time."""
    if sys.stderr.isatty():
        from rich import progress as bars
        from rich.console import Console

        columns = (*bars.Progress.get_default_columns(), bars.MofNCompleteColumn())
        with bars.Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("images", total=count)
            yield lambda done: bar.update(task, completed=done)
        return
    start = last = time.monotonic()

    def tell(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SECONDS:
            last = now
            of = f" of {count}" if count else ""
            print(f"{done}{of} images, {done / (now - start):.2f} per second", file=sys.stderr)

    yield tell
