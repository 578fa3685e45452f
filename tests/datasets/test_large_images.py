"""Bands of rows are those of the whole picture, whatever the file is."""

import re

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from swin_dense.datasets import images, large_images
from swin_dense.errors import InputError

H, W = 61, 47
RNG = np.random.default_rng(1)
RGB = cv2.GaussianBlur(RNG.integers(0, 256, (H, W, 3), np.uint8), (3, 3), 0)
ALPHA = RNG.integers(0, 256, (H, W, 1), np.uint8)
DEEP = RGB.astype(np.uint16) * 257 + RNG.integers(0, 40, RGB.shape, np.uint16)


def turned(number):
    exif = Image.Exif()
    exif[images.ORIENTATION] = number
    return exif


def pillow(pixels, mode=None, **how):
    image = Image.fromarray(pixels)
    return lambda path: (image.convert(mode) if mode else image).save(path, **how)


def tiff(pixels, **how):
    return lambda path: tifffile.imwrite(path, pixels, **how)


def turned_tiff(number, **how):
    return tiff(RGB, photometric="rgb", extratags=[(274, 3, 1, number, True)], **how)


FILES = {
    "rgb.png": pillow(RGB),
    "grey.png": pillow(RGB[..., 0]),
    "grey_alpha.png": pillow(RGB[..., 0], "LA"),
    "rgba.png": pillow(np.concatenate([RGB, ALPHA], -1)),
    "palette.png": pillow(RGB, "P"),
    "one_bit.png": pillow(RGB[..., 0], "1"),
    "grey16.png": pillow(DEEP[..., 0]),
    "rgb16.png": lambda path: cv2.imwrite(str(path), DEEP),
    "rgba16.png": lambda path: cv2.imwrite(str(path), np.concatenate([DEEP, DEEP[..., :1]], -1)),
    "few.png": lambda path: (Image.fromarray(RGB).quantize(5).save(path, bits=4, transparency=2)),
    "turned.png": pillow(RGB, exif=turned(6)),
    "turned.jpg": pillow(RGB, exif=turned(8)),
    "progressive.jpg": pillow(RGB, progressive=True),
    "cmyk.jpg": pillow(RGB, "CMYK"),
    "lossless.webp": pillow(RGB, lossless=True),
    "plain.bmp": pillow(RGB),
    **{f"turned{k}.tif": turned_tiff(k, rowsperstrip=17) for k in range(2, 9)},
    "turned_tiles.tif": turned_tiff(7, tile=(16, 32), compression="zlib"),
    "big.tif": tiff(RGB, bigtiff=True, tile=(16, 32), compression="zlib", predictor=True),
    "planes.tif": tiff(
        np.moveaxis(RGB, -1, 0), photometric="rgb", planarconfig="separate", compression="zlib"
    ),
    "deep.tif": tiff(DEEP, photometric="rgb", byteorder=">", compression="zlib", predictor=True),
    "plain_deep.tif": tiff(DEEP, photometric="rgb", byteorder=">"),
    "grey16.tif": tiff(DEEP[..., 0], compression="zlib", rowsperstrip=5),
    "white_is_zero.tif": tiff(RGB[..., 0], photometric="miniswhite"),
    "alpha.tif": tiff(
        np.concatenate([RGB, ALPHA], -1), photometric="rgb", extrasamples=["unassalpha"]
    ),
    "pages.tif": tiff(np.stack([RGB, RGB[::-1]]), photometric="rgb"),
    "lzw.tif": pillow(RGB, compression="tiff_lzw"),
    "jpeg.tif": pillow(RGB, compression="jpeg"),
    "cmyk.tif": pillow(RGB, "CMYK"),
}


def bands(image, counts=(1, 7, 19, 2)):
    found, left = [], image.size[0]
    for count in (*counts, left):
        count = min(count, left)
        if count:
            found.append(image.read(count))
        left -= count
    image.close()
    return np.concatenate(found)


@pytest.mark.parametrize("name", FILES)
def test_bands_are_the_picture(name, tmp_path):
    path = tmp_path / name
    FILES[name](path)
    expected = images.read_rgb(path)
    image = large_images.open_image(path)
    assert image.size == expected.shape[:2]
    found = bands(image)
    # Pillow cuts 16 bits of colours in a TIFF, here they are rounded; so is what lies on white.
    most = 1 if name in ("deep.tif", "plain_deep.tif", "alpha.tif") else 0
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= most


@pytest.mark.parametrize(
    "name", ["rgb.png", "lzw.tif", "big.tif", "progressive.jpg", "turned2.tif"]
)
@pytest.mark.parametrize("share", [0.05, 0.7, 0.97])
def test_a_file_cut_short_is_one_message(name, share, tmp_path):
    path = tmp_path / name
    FILES[name](path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match=re.escape(str(path)) + ".*(cut off|damaged)"):
        bands(large_images.open_image(path))


def test_a_changed_byte_of_a_png_is_told(tmp_path):
    path = tmp_path / "rgb.png"
    FILES["rgb.png"](path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        bands(large_images.open_image(path))


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"", "is empty"), (b"no picture at all", "no image of a known kind"), (b"II*\0", "damaged")],
)
def test_what_is_no_image_is_one_message(content, text, tmp_path):
    path = tmp_path / "text.tif"
    path.write_bytes(content)
    with pytest.raises(InputError, match=text):
        large_images.open_image(path)


def test_a_level_of_a_pyramid(tmp_path):
    path = tmp_path / "pyramid.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(RGB, photometric="rgb", subifds=1, compression="zlib")
        writer.write(RGB[::2, ::2], photometric="rgb", subfiletype=1, compression="zlib")
    assert np.array_equal(bands(large_images.open_image(path, level=1)), RGB[::2, ::2])
    with pytest.raises(InputError, match=r"levels 0 to 1 \(47x61, 24x31\)"):
        large_images.open_image(path, level=2)


def test_limits_are_told_and_raised_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(large_images, "MOST", 100)
    for name in ("rgb.png", "big.tif"):
        FILES[name](tmp_path / name)
        with pytest.raises(InputError, match=r"2,867, at most 100 .*`most_pixels`"):
            large_images.open_image(tmp_path / name)
        large_images.open_image(tmp_path / name, most_pixels=2867).close()
    FILES["progressive.jpg"](tmp_path / "a.jpg")
    monkeypatch.setattr(large_images, "MOST_WHOLE", 100)
    with pytest.raises(InputError, match="decoded as a whole, 4 bytes a pixel"):
        large_images.open_image(tmp_path / "a.jpg")
