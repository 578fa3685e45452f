"""One colour for each class index, the same in every picture."""

import colorsys


def palette(count: int) -> list[tuple[int, int, int]]:
    """`count` RGB colours, 0 to 255, that neighbours in the list tell apart: golden-ratio hues."""
    colours = []
    for i in range(count):
        red, green, blue = colorsys.hsv_to_rgb(
            (0.02 + i * 0.618034) % 1.0, (0.80, 0.55)[i // 8 % 2], (0.95, 0.70)[i // 4 % 2]
        )
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return colours
