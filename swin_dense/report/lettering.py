"""Fonts with which names of any script can be written.

Pillow's own font has Latin letters. For others the fonts of the machine are searched once; letters
that none of them has are written as their codes, such as \\u4e2d, and not as empty boxes.
"""

import functools
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
MISSING = "\uffff"  # no letter: a font draws what it draws for all that it lacks
TRIED_AT = 16  # pixels


def fitting(text: str, size: int) -> tuple[Font, str]:
    """Return a font of a size in pixels that has the letters of a text, and what to write."""
    letters = {letter for letter in text if not letter.isspace()}
    lacking = {letter for letter in letters if not _has(None, letter)}
    if not lacking:
        return _font(None, size), text
    for path in _system_fonts():
        if all(_has(path, letter) for letter in letters):
            return _font(path, size), text
    coded = "".join(
        letter.encode("ascii", "backslashreplace").decode() if letter in lacking else letter
        for letter in text
    )
    return _font(None, size), coded


@functools.lru_cache(maxsize=64)
def _font(path: Path | None, size: int) -> Font:
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)


@functools.lru_cache(maxsize=4096)
def _has(path: Path | None, letter: str) -> bool:
    """Tell whether a font draws a letter otherwise than what it does not have."""
    try:
        font = _font(path, TRIED_AT)
        return bytes(font.getmask(letter)) != bytes(font.getmask(MISSING))
    except (OSError, ValueError):  # pictures for letters, in sizes of their own
        return False


@functools.cache
def _system_fonts() -> list[Path]:
    """List the fonts of this machine, upright ones without serifs first."""
    try:
        import matplotlib
        from matplotlib import font_manager
    except ImportError:
        return []
    own = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    found = sorted(Path(path) for path in font_manager.findSystemFonts())
    slanted = ("Italic", "Oblique", "Mono", "Light", "Thin", "Black", "Bold", "Condensed", "Serif")
    found.sort(key=lambda path: sum(word in path.stem for word in slanted))
    return [path for path in (own, *found) if path.is_file()]
