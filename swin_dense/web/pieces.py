"""Write the pieces of the page that are HTML: a sentence, and the table of what was found.

Names of files and classes are strangers' words: all of them go through `report.page.text`.
"""

from collections.abc import Sequence

from swin_dense.report.page import Html, join, text
from swin_dense.report.results import LabelMap
from swin_dense.web.views import Row, View

ROWS = 100  # of the table; all are in what can be downloaded


def sentence(words: str, notes: Sequence[str] = (), wrong: bool = False) -> Html:
    """Write what there is to say about a request; what went wrong is told as an alert."""
    lines = join(Html(f"<p class=note>{text(note)}</p>") for note in notes)
    kind, role = ("wrong", "alert") if wrong else ("told", "status")
    return Html(f'<div class="sentence {kind}" role="{role}"><p>{text(words)}</p>{lines}</div>')


def summary(view: View, seconds: float, least: float, classes: Sequence[str]) -> str:
    """Say in a sentence what is shown.

    Args:
        seconds: that the look took.
        least: the threshold of the view.
        classes: all that the model knows.
    """
    scored = not isinstance(view.result, LabelMap)
    if view.rows and scored:
        words = f"{view.result} in {seconds:.2f} s."
    elif view.rows:
        words = f"{_count(len(view.rows), 'class', 'classes')} in {seconds:.2f} s."
    elif not view.names:
        words = f"Nothing found. This model knows {listing(classes)}, and nothing else."
    else:
        above = f" is {least:.2f} sure or more" if scored else " is shown"
        words = f"Nothing of the classes that are chosen{above}."
    if view.weaker:
        words += f" {_count(view.weaker, 'is', 'are')} less sure than {least:.2f}."
    return words


def table(rows: Sequence[Row]) -> Html:
    """Write what is shown: colour and class, and what there is of score, place and share."""
    if not rows:
        return Html("")
    first = rows[0]
    heads = ["Class"]
    heads += ["Score"] if first.score is not None else []
    heads += ["Left, top", "Size"] if first.box is not None else []
    heads += ["Of the picture"] if first.share is not None else []
    head = join(Html(f'<th scope="col">{text(name)}</th>') for name in heads)
    body = join(_row(row) for row in rows[:ROWS])
    more = len(rows) - ROWS
    end = f"<p class=note>{more} more are in the JSON.</p>" if more > 0 else ""
    return Html(
        f'<div class="found"><table aria-label="What was found"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>{end}</div>"
    )


def _row(row: Row) -> Html:
    swatch = f'<i style="background:rgb{row.colour}"></i>'
    cells = [f'<th scope="row">{swatch}{text(row.name)}</th>']
    if row.score is not None:
        cells.append(f"<td>{row.score:.2f}</td>")
    if row.box is not None:
        left, top, right, bottom = row.box
        cells.append(f"<td>{left:.0f}, {top:.0f}</td>")
        cells.append(f"<td>{right - left:.0f} x {bottom - top:.0f}</td>")
    if row.share is not None:
        cells.append(f"<td>{row.share:.1%}</td>")
    return Html(f"<tr>{''.join(cells)}</tr>")


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


def listing(classes: Sequence[str], most: int = 12) -> str:
    """Name the classes, the first of them where there are many."""
    named = ", ".join(classes[:most])
    return f"{named} and {len(classes) - most} more" if len(classes) > most else named
