"""Names in any script are written with letters, or with their codes."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from swin_dense.report import lettering


def ink(text, font):
    picture = Image.new("L", (400, 60))
    ImageDraw.Draw(picture).text((5, 5), text, fill=255, font=font)
    return np.asarray(picture)


def test_latin_letters_need_no_font_of_the_machine(monkeypatch):
    text = "zebra crossing 0.93"
    monkeypatch.setattr(lettering, "_system_fonts", list)
    font, written = lettering.fitting(text, 20)
    assert written == text
    assert ink(written, font).max() == 255


@pytest.mark.parametrize("text", ["кошка 0.93", "γάτα", "Ångström"])
def test_other_scripts_take_a_font_that_has_them(text):
    """DejaVu Sans comes with matplotlib, wherever mmdet is."""
    font, written = lettering.fitting(text, 20)
    assert written == text
    empty_box = ink(lettering.MISSING, font)
    assert not any(np.array_equal(ink(letter, font), empty_box) for letter in set(text) - {" "})
    assert 12 < font.getbbox(text)[3] < 40


def test_letters_that_no_font_has_are_written_as_their_codes(monkeypatch):
    monkeypatch.setattr(lettering, "_system_fonts", list)
    assert lettering.fitting("猫 0.93", 20)[1] == "\\u732b 0.93"
