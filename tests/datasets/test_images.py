"""Every kind of picture, made here from known pixels, against what `read_rgb` returns."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile

from swin_dense.datasets.images import as_rgb, decode_rgb, find_images, image_size, read_rgb
from swin_dense.errors import InputError, MissingInputError

HEIGHT, WIDTH = 24, 40


@pytest.fixture
def rgb():
    """Four flat corners of different colours: survives JPEG, shows every turn and flip."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:16, :24] = (200, 30, 40)
    image[:16, 24:] = (30, 180, 60)
    image[16:, :24] = (40, 60, 220)
    image[16:, 24:] = (230, 220, 30)
    return image


def encode(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise_jpeg(progressive=False):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 80, 3)).astype(np.uint8)
    return encode(Image.fromarray(pixels), "JPEG", quality=90, progressive=progressive)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "JPEG", "WEBP"])
def test_plain_rgb(rgb, kind, tmp_path):
    path = tmp_path / "image"
    options = {"quality": 100} | ({"subsampling": 0} if kind == "JPEG" else {"lossless": True})
    path.write_bytes(encode(Image.fromarray(rgb), kind, **options))
    out = read_rgb(path)
    assert out.dtype == np.uint8
    assert out.flags.writeable
    assert out.flags.c_contiguous
    np.testing.assert_allclose(out.astype(int), rgb, atol=6 if kind == "JPEG" else 0)
    assert image_size(path) == (HEIGHT, WIDTH)


def test_jpeg_pixels_are_those_of_opencv():
    data = noise_jpeg()
    other = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(decode_rgb(data, "x").astype(int) - other).max() <= 4


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_grey(kind):
    grey = np.full((HEIGHT, WIDTH), 77, np.uint8)
    out = decode_rgb(encode(Image.fromarray(grey), kind), "x")
    np.testing.assert_array_equal(out, np.full((HEIGHT, WIDTH, 3), 77))


def test_one_bit():
    bits = np.indices((HEIGHT, WIDTH)).sum(axis=0) % 2 == 0
    for kind in ("PNG", "TIFF"):
        out = decode_rgb(encode(Image.fromarray(bits), kind), "x")
        np.testing.assert_array_equal(out, np.repeat(bits[..., None] * 255, 3, axis=2))


def test_palette(rgb):
    image = Image.fromarray(rgb).quantize(8)
    np.testing.assert_array_equal(decode_rgb(encode(image, "PNG"), "x"), rgb)
    np.testing.assert_array_equal(decode_rgb(encode(image, "GIF"), "x"), rgb)


def test_transparent_parts_lie_on_white(rgb):
    alpha = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    data = encode(Image.fromarray(np.dstack([rgb, alpha])), "PNG")
    share = alpha[..., None] / 255
    np.testing.assert_allclose(decode_rgb(data, "x"), rgb * share + 255 * (1 - share), atol=1)

    grey = np.dstack([rgb[..., 0], alpha])
    out = decode_rgb(encode(Image.fromarray(grey, "LA"), "PNG"), "x")
    np.testing.assert_allclose(out[..., 1], grey[..., 0] * share[..., 0] + 255 - alpha, atol=1)


def test_transparent_colour(rgb):
    """A colour of a palette, and a colour of an RGB image, declared transparent."""
    gone = (rgb == (200, 30, 40)).all(axis=2)
    expected = np.where(gone[..., None], 255, rgb)
    data = encode(Image.fromarray(rgb), "PNG", transparency=(200, 30, 40))
    np.testing.assert_array_equal(decode_rgb(data, "x"), expected)
    paletted = Image.fromarray(rgb).quantize(8)
    data = encode(paletted, "PNG", transparency=paletted.getpixel((0, 0)))
    np.testing.assert_array_equal(decode_rgb(data, "x"), expected)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_scaled_not_clipped(suffix, channels):
    ramp = np.linspace(0, 65535, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
    image = np.stack([ramp, ramp[::-1], ramp[:, ::-1]], axis=-1)
    deep = ramp if channels == 1 else image
    if channels == 4:
        deep = np.dstack([image, np.full_like(ramp, 65535)])
    out = decode_rgb(cv2.imencode(suffix, deep)[1].tobytes(), "x")
    expected = np.repeat(ramp[..., None], 3, axis=2) if channels == 1 else image[..., ::-1]
    assert np.abs(out - expected / 257).max() < 1
    assert out.min() == 0
    assert out.max() == 255


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_no_range_no_picture(dtype):
    data = encode(Image.fromarray(np.zeros((4, 5), dtype)), "TIFF")
    with pytest.raises(InputError, match=r"scan\.tif: 32 bits per sample.*Convert the image to 8"):
        decode_rgb(data, "scan.tif")


def test_cmyk_jpeg():
    for colour in ((255, 0, 0), (255, 255, 255), (0, 0, 0), (0, 0, 255)):
        image = Image.new("RGB", (16, 16), colour).convert("CMYK")
        out = decode_rgb(encode(image, "JPEG", quality=98), "x")
        np.testing.assert_allclose(out.mean(axis=(0, 1)), colour, atol=6)


# Orientation tag -> how the stored picture is turned upright, by the words of the standard:
# where the 0th row and the 0th column of the stored picture are seen.
UPRIGHT = {
    1: lambda a: a,  # top, left
    2: lambda a: a[:, ::-1],  # top, right
    3: lambda a: a[::-1, ::-1],  # bottom, right
    4: lambda a: a[::-1],  # bottom, left
    5: lambda a: a.swapaxes(0, 1),  # left, top
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],  # right, top
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],  # right, bottom
    8: lambda a: a.swapaxes(0, 1)[::-1],  # left, bottom
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation(rgb, orientation, kind, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    path = tmp_path / "image"
    path.write_bytes(encode(Image.fromarray(rgb), kind, exif=exif, **options))
    expected = UPRIGHT[orientation](rgb)
    np.testing.assert_allclose(read_rgb(path).astype(int), expected, atol=6)
    assert image_size(path) == expected.shape[:2]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_is_no_obstacle(rgb):
    data = encode(Image.fromarray(rgb), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert decode_rgb(data, "x").shape == rgb.shape


@pytest.mark.parametrize("progressive", [False, True])
def test_cut_jpeg(progressive):
    data = noise_jpeg(progressive)
    for cut in (1, 2, 3, 7, 20, 100, len(data) // 2, len(data) - 700, len(data) - 100):
        with pytest.raises(InputError, match=r"^cut\.jpg: .*(cut off|damaged)"):
            decode_rgb(data[:-cut], "cut.jpg")


def test_cut_jpeg_of_several_read_blocks():
    pixels = np.random.default_rng(1).integers(0, 256, (400, 500, 3)).astype(np.uint8)
    data = encode(Image.fromarray(pixels), "JPEG", quality=95)
    assert len(data) > 3 * ImageFile.MAXBLOCK
    for size in (ImageFile.MAXBLOCK, 2 * ImageFile.MAXBLOCK, len(data) - 2, len(data) - 1):
        with pytest.raises(InputError, match="cut off"):
            decode_rgb(data[:size], "cut.jpg")


def test_cut_png(rgb):
    data = encode(Image.fromarray(rgb), "PNG")
    for cut in (1, 4, 8, 12, 16, 30, len(data) // 2, len(data) - 20, len(data) - 9):
        with pytest.raises(InputError, match=r"^cut\.png: .*(cut off|damaged)"):
            decode_rgb(data[:-cut], "cut.png")


def test_bytes_after_the_end_are_no_obstacle(rgb):
    for kind in ("PNG", "JPEG"):
        data = encode(Image.fromarray(rgb), kind)
        np.testing.assert_array_equal(decode_rgb(data + b"\0" * 50, "x"), decode_rgb(data, "x"))


def test_too_large_says_tiles():
    data = b"\x89PNG\r\n\x1a\n"
    sides = struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0)
    for chunk in (b"IHDR" + sides, b"IDAT", b"IEND"):
        data += struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    with pytest.raises(InputError, match=r"map\.png: .*too large.*Cut it into tiles"):
        decode_rgb(data, "map.png")


def test_a_picture_in_memory_is_what_its_file_would_be(rgb, tmp_path):
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(rgb).transpose(Image.Transpose.ROTATE_90)
    turned.save(path, exif=exif)
    assert as_rgb(rgb) is rgb
    for given in (path, str(path), Image.open(path), Image.fromarray(rgb)):
        assert np.array_equal(as_rgb(given), rgb)
    assert np.array_equal(as_rgb(Image.fromarray(rgb[..., 0])), np.stack([rgb[..., 0]] * 3, -1))
    clear = Image.fromarray(np.dstack([rgb, np.zeros((HEIGHT, WIDTH), np.uint8)]))
    assert (as_rgb(clear) == 255).all()


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((5, 7), np.uint8), r"uint8 of \(5, 7\)\. Repeat a grey image: "),
        (np.zeros((5, 7, 4), np.uint8), r"\(5, 7, 4\)\. Leave out the transparency: array\["),
        (np.zeros((3, 5, 7), np.uint8), r"\(3, 5, 7\)\. Move the colours to the end: "),
        (np.zeros((5, 7, 3), np.float32), r"float32 of \(5, 7, 3\)\. Bring the values to 0 to "),
        (np.zeros((2, 5, 7, 3), np.uint8), r"\(2, 5, 7, 3\)\. Give one image at a time"),
        (np.zeros((0, 7, 3), np.uint8), r"uint8 of \(0, 7, 3\)"),
        ([[0, 0, 0]], r"an RGB array of numpy: \(H, W, 3\), uint8, 0 to 255; got list\."),
    ],
)
def test_an_array_of_another_form(array, says):
    with pytest.raises(InputError, match=says):
        as_rgb(array)


def test_a_cut_picture_in_memory(tmp_path):
    path = tmp_path / "cut.jpg"
    path.write_bytes(noise_jpeg()[:-2000])
    with pytest.raises(InputError, match=r"cut\.jpg: the image is cut off or damaged"):
        as_rgb(Image.open(path))


def test_no_image_at_all(tmp_path):
    empty, text = tmp_path / "empty.jpg", tmp_path / "notes.jpg"
    empty.touch()
    text.write_text("These are my notes.")
    with pytest.raises(InputError, match=r"empty\.jpg: the image file is empty \(0 bytes\)"):
        read_rgb(empty)
    with pytest.raises(InputError, match=r"notes\.jpg: this is no image.*b'These are my no"):
        read_rgb(text)
    with pytest.raises(InputError, match="must be a file, this is a folder"):
        read_rgb(tmp_path)
    with pytest.raises(MissingInputError, match=r"has no 'note\.jpg'\. Did you mean 'notes\.jpg'"):
        read_rgb(tmp_path / "note.jpg")
    with pytest.raises(MissingInputError, match=r"does not exist"):
        read_rgb(tmp_path / "no" / "such" / "folder.jpg")
    with pytest.raises(MissingInputError, match=r"notes\.jpg is a file, not a folder"):
        read_rgb(text / "inside.jpg")


def test_find_images(tmp_path):
    for name in ("b.PNG", "a.jpg", "c.Jpeg", "notes.txt", "._a.jpg", "d.tif"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [p.name for p in find_images(tmp_path)] == ["a.jpg", "b.PNG", "c.Jpeg", "d.tif"]
    assert find_images(str(tmp_path / "notes.txt")) == [tmp_path / "notes.txt"]


def test_find_images_says_what_it_saw(tmp_path):
    with pytest.raises(InputError, match="nothing at all"):
        find_images(tmp_path)
    for name in ("a.txt", "b.txt", "c.npy", "README"):
        (tmp_path / name).touch()
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match=r"2 \.txt, 1 without suffix, 1 \.npy, 1 folders"):
        find_images(tmp_path)
    with pytest.raises(MissingInputError, match="no such file or folder"):
        find_images(tmp_path / "val")
