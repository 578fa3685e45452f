"""Write one HTML page that needs nothing else: no network, no script, light and dark.

Everything that comes from a file, a config or a class list goes through `text`; what the functions
here return is HTML already (`Html`) and is joined as it is.
"""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

WIDEST = 720  # pixels of a picture in the page
QUALITY = 82  # of its JPEG
NOTHING = "-"

STYLE = """
:root{color-scheme:light dark;--ground:#fff;--text:#1b1f24;--soft:#57606a;--line:#d8dee4;
--panel:#f6f8fa;--fill:38 105 200;--accent:#1f5fbf;
--c0:#1f5fbf;--c1:#c2500f;--c2:#1a7f5a;--c3:#8a3fb5;--c4:#a8780a;--c5:#c02a5b}
@media(prefers-color-scheme:dark){:root{--ground:#11151a;--text:#e6eaef;--soft:#9aa5b1;
--line:#303841;--panel:#1a2028;--fill:96 156 255;--accent:#7db0ff;
--c0:#7db0ff;--c1:#ff9d5c;--c2:#5fd0a5;--c3:#cf9bf2;--c4:#e6c057;--c5:#ff86ab}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--text);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Noto Sans CJK SC",sans-serif}
main{max-width:72rem;margin:0 auto;padding:1rem}
h1{font-size:1.6rem;line-height:1.25;margin:.5rem 0;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:2.2rem 0 .6rem;padding-top:.6rem;border-top:1px solid var(--line)}
h3{font-size:1.05rem;margin:1.4rem 0 .4rem}
p{margin:.4rem 0;max-width:46rem}.soft{color:var(--soft);font-size:.9rem}
a{color:var(--accent)}nav ul{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;list-style:none;
padding:0;margin:.6rem 0}
.wide{overflow:auto;max-height:40rem;margin:.4rem 0 1rem}.wide:focus-visible,summary:focus-visible,
a:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
table{border-collapse:collapse;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .7rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
thead th{position:sticky;top:0;background:var(--ground);vertical-align:bottom;
color:var(--soft);font-weight:600}
th:first-child,td:first-child,.words td,.words th{text-align:left}
.told td:last-child,.told th:last-child{text-align:left;white-space:normal}
.words td{white-space:normal;overflow-wrap:anywhere}tbody th{font-weight:500;max-width:20rem;
overflow-wrap:break-word;white-space:normal}
.bar{display:inline-block;width:9rem;height:.7rem;background:var(--panel);border-radius:2px;
vertical-align:middle;margin-left:.6rem;overflow:hidden}
.bar>i{display:block;height:100%;background:rgb(var(--fill))}
.matrix{font-size:.78rem}.matrix td,.matrix th{padding:.15rem .3rem;border:1px solid var(--line);
text-align:center}.matrix tbody th{text-align:right;white-space:nowrap}
.matrix thead th{position:static;writing-mode:vertical-rl;transform:rotate(180deg);text-align:left;
max-height:11rem;font-weight:500}.matrix thead td{border:0}
.matrix td{background:rgb(var(--fill)/var(--v,0));min-width:1.9rem}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,21rem),1fr));gap:1rem}
figure{margin:0}figcaption{color:var(--soft);font-size:.88rem}
svg{width:100%;height:auto;max-width:34rem;display:block}
svg text{fill:var(--text);font-size:12px}svg .axis{stroke:var(--soft)}svg .grid{stroke:var(--line)}
svg .ideal{stroke:var(--soft);stroke-dasharray:4 4}
.key{display:flex;flex-wrap:wrap;gap:.1rem 1rem;list-style:none;padding:0;margin:.2rem 0;
font-size:.85rem}.key i{display:inline-block;width:1.1rem;height:.35rem;margin-right:.4rem;
vertical-align:middle;border-radius:2px}
.pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));
gap:.8rem;margin:.4rem 0 1.4rem}.pictures figure{max-width:36rem}
.pictures img{width:100%;height:auto;display:block;
border-radius:4px;background:var(--panel)}
details{margin:.5rem 0;border:1px solid var(--line);border-radius:4px;padding:.3rem .8rem}
summary{cursor:pointer;font-weight:500;overflow-wrap:anywhere}
code,pre{font:.88rem/1.45 ui-monospace,Menlo,Consolas,monospace}pre{overflow-x:auto}
@media(max-width:40rem){.bar{width:4rem}th,td{padding:.25rem .45rem}main{padding:.8rem}}
@media print{details{break-inside:avoid}}
"""


class Html(str):
    """Mark a text as HTML that is safe to join."""

    __slots__ = ()


def text(value: Any) -> Html:
    """Escape anything that is not HTML yet."""
    return value if isinstance(value, Html) else Html(html.escape(str(value), quote=True))


def join(parts: Iterable[Any]) -> Html:
    """Join parts, each escaped unless it is HTML."""
    return Html("".join(text(part) for part in parts))


def document(title: str, sections: Sequence[tuple[str, Html]], lead: Html) -> str:
    """Return the whole page: a title, what leads in, and sections with a list of them on top.

    Args:
        sections: heading and content of each.
    """
    entries = [
        f'<li><a href="#part{i}">{text(name)}</a></li>' for i, (name, _) in enumerate(sections)
    ]
    body = [
        f'<section aria-labelledby="part{i}"><h2 id="part{i}">{text(name)}</h2>{content}</section>'
        for i, (name, content) in enumerate(sections)
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<link rel="icon" href="data:,">'  # else browsers ask for favicon.ico
        f"<title>{text(title)}</title><style>{STYLE}</style></head>\n<body><main>"
        f"<h1>{text(title)}</h1>{lead}"
        f'<nav aria-label="Sections"><ul>{"".join(entries)}</ul></nav>'
        + "\n".join(body)
        + "</main></body></html>\n"
    )


def paragraph(*parts: Any, soft: bool = False) -> Html:
    """Return a paragraph; a soft one is a remark."""
    return Html(f"<p{' class=soft' if soft else ''}>{join(parts)}</p>")


def heading(name: str) -> Html:
    """Return a heading below a section's."""
    return Html(f"<h3>{text(name)}</h3>")


def table(
    caption: str, header: Sequence[Any], rows: Iterable[Sequence[Any]], kind: str = ""
) -> Html:
    """Return a table that scrolls by itself where it is too wide; the first column names rows.

    Args:
        kind: "words" for text in the columns, "told" for text in the last one, "" for numbers.
    """
    head = "".join(f'<th scope="col">{text(cell)}</th>' for cell in header)
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td>{text(cell)}</td>" for cell in others)
        lines.append(f'<tr><th scope="row">{text(first)}</th>{cells}</tr>')
    return _scrolling(
        caption,
        f'<table class="{kind or "plain"}" aria-label="{text(caption)}">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>",
    )


def matrix(
    caption: str, rows: Sequence[str], columns: Sequence[str], shares: np.ndarray, counts: Any
) -> Html:
    """Return a matrix of percents, each cell as strongly coloured as its share.

    Args:
        shares: (R, C), 0 to 1.
        counts: (R, C) whole numbers, told when a cell is pointed at.
    """
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in columns)
    lines = []
    for name, part, numbers in zip(rows, shares.tolist(), np.asarray(counts).tolist(), strict=True):
        cells = []
        for column, share, number in zip(columns, part, numbers, strict=True):
            if not number:
                cells.append("<td></td>")
                continue
            hint = text(f"{name} taken for {column}: {number}")
            # At three quarters both black and white text stay readable on it.
            cells.append(
                f'<td style="--v:{0.75 * share:.2f}" title="{hint}">{100 * share:.0f}</td>'
            )
        lines.append(f'<tr><th scope="row">{text(name)}</th>{"".join(cells)}</tr>')
    return _scrolling(
        caption,
        f'<table class="matrix" aria-label="{text(caption)}"><thead><tr><td></td>{head}</tr>'
        f"</thead><tbody>{''.join(lines)}</tbody></table>",
    )


def bar(share: float, shown: str) -> Html:
    """Return a number with a bar beside it that is full at a share of 1."""
    if share != share:
        return text(shown)
    width = 100 * min(max(share, 0.0), 1.0)
    return Html(
        f'{text(shown)}<span class="bar" aria-hidden="true"><i style="width:{width:.1f}%"></i>'
        "</span>"
    )


def folded(summary: Any, *content: Any) -> Html:
    """Return content that shows when it is asked for."""
    return Html(f"<details><summary>{text(summary)}</summary>{join(content)}</details>")


def figures(*content: Html) -> Html:
    """Lay figures beside one another where there is room."""
    return Html(f'<div class="figures">{"".join(content)}</div>')


def figure(drawing: Html, caption: Any, key: Sequence[str] = ()) -> Html:
    """Return a drawing with its caption and what its colours mean, in the order of the colours."""
    entries = [
        f'<li><i style="background:var(--c{i % 6})"></i>{text(name)}</li>'
        for i, name in enumerate(key)
    ]
    shown = f'<ul class="key">{"".join(entries)}</ul>' if key else ""
    return Html(f"<figure>{drawing}{shown}<figcaption>{text(caption)}</figcaption></figure>")


def key(names: Sequence[str], shades: Sequence[tuple[int, int, int]]) -> Html:
    """Return what colours (0 to 255) mean."""
    entries = [
        f'<li><i style="background:rgb{shade};height:.8rem"></i>{text(name)}</li>'
        for name, shade in zip(names, shades, strict=True)
    ]
    return Html(f'<ul class="key">{"".join(entries)}</ul>')


def first_few(content: Sequence[Html], few: int, what: str) -> Html:
    """Show the first parts, and the others when they are asked for."""
    rest = content[few:]
    return join([*content[:few], folded(f"{len(rest)} more {what}", *rest) if rest else ""])


def pictures(shown: Sequence[tuple[np.ndarray, str, str]]) -> Html:
    """Lay pictures beside one another.

    Args:
        shown: of each its pixels (H, W, 3) uint8, its caption, and the words that stand for it
            where it cannot be seen.
    """
    parts = [
        f'<figure><img src="{data_uri(rgb)}" alt="{text(words)}" loading="lazy">'
        f"<figcaption>{text(caption)}</figcaption></figure>"
        for rgb, caption, words in shown
    ]
    return Html(f'<div class="pictures">{"".join(parts)}</div>')


def data_uri(rgb: np.ndarray) -> str:
    """Encode a picture (H, W, 3) uint8 into the page itself, made smaller where it is wide."""
    picture = Image.fromarray(rgb)
    picture.thumbnail((WIDEST, 2 * WIDEST), Image.Resampling.LANCZOS)
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode()


def facts(caption: str, known: Mapping[str, Any]) -> Html:
    """Return a table of names and what is known of each."""
    return table(caption, ["", ""], known.items(), kind="words")


def number(value: float | None, digits: int = 3) -> str:
    """Write a number; one that was not computed, nan or COCO's -1, is a dash."""
    if value is None or value != value or value == -1:
        return NOTHING
    return f"{value:.{digits}f}"


def _scrolling(label: str, content: str) -> Html:
    # Reached by the keyboard, too, where it has to be scrolled.
    label = text(label)
    return Html(
        f'<p class="soft">{label}</p>'
        f'<div class="wide" role="region" tabindex="0" aria-label="{label}">{content}</div>'
    )
