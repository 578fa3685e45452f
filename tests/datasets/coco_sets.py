"""A small COCO instance set to spoil in one way each, and what was found in it."""

import copy
import json

from swin_dense.datasets.coco_layout import examine


def square(left, top, side=20):
    """A polygon, its corners clockwise."""
    right, bottom = left + side, top + side
    return [float(v) for v in (left, top, right, top, right, bottom, left, bottom)]


def entry(number, image, category, left=10, top=10, **other):
    """A square object of 20 pixels."""
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [left, top, 20, 20],
        "area": 400,
        "iscrowd": 0,
        "segmentation": [square(left, top)],
    } | other


def good():
    """Two images of 48x64 (height x width), three objects, categories 7 and 3."""
    return copy.deepcopy(
        {
            "images": [
                {"id": 1, "file_name": "one.jpg", "width": 64, "height": 48},
                {"id": 2, "file_name": "two.jpg", "width": 64, "height": 48},
            ],
            "annotations": [entry(1, 1, 7), entry(2, 2, 3), entry(3, 2, 7, left=35)],
            "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        }
    )


def write(folder, content, names=("one.jpg", "two.jpg")):
    """Write the file and empty images; return the path of the file and of the images."""
    images = folder / "images"
    images.mkdir(exist_ok=True)
    for name in names:
        (images / name).touch()
    path = folder / "instances.json"
    if not isinstance(content, bytes):
        content = json.dumps(content).encode()
    path.write_bytes(content)
    return path, images


def found_in(folder, content, names=("one.jpg", "two.jpg"), **arguments):
    """Examine a set: code -> finding."""
    arguments = {"need_masks": True} | arguments
    summary, findings = examine(*write(folder, content, names), **arguments)
    codes = [finding.kind.code for finding in findings]
    assert len(codes) == len(set(codes)), codes
    return {finding.kind.code: finding for finding in findings}, summary
