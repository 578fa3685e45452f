"""Draw samples of a config's data as the model sees them, after the pipeline.

Boxes, masks and label maps are those that the loss gets; what is not judged is hatched. index.html
shows the pictures with what each step did.
"""

import argparse
from pathlib import Path

from swin_dense.cli import options
from swin_dense.cli.command import command, worded


def _parser() -> argparse.ArgumentParser:
    parser = options.parser("tools/browse_data.py", __doc__)
    options.add_config(parser)
    options.add_data(parser)
    options.add_val_share(parser)
    parser.add_argument(
        "--split", choices=["train", "val", "test"], default="train", help="whose images (train)"
    )
    parser.add_argument(
        "--count", type=options.positive, default=12, metavar="N", help="how many samples (12)"
    )
    parser.add_argument(
        "--out-dir", metavar="DIR", help="where the pictures go (work_dirs/<config name>/samples)"
    )
    parser.add_argument(
        "--seed", type=options.natural, default=0, help="of the choice and of the pipeline (0)"
    )
    return parser


def _browse(asked: argparse.Namespace) -> None:
    from PIL import Image

    from swin_dense.checkpoints import files
    from swin_dense.openmmlab.engine import samples
    from swin_dense.openmmlab.settings import config as configs
    from swin_dense.openmmlab.settings import image_sizes, places, whole_sets
    from swin_dense.report import samples as pages

    config = configs.load(asked.config, asked.cfg_options, _say, asked.trust_config)
    folder = Path(asked.out_dir or f"work_dirs/{Path(asked.config).stem}/samples")
    files.require_place(folder, "--out-dir")
    share = whole_sets.Share(asked.val_share, asked.seed, folder)
    for line in places.complete_data(
        config, (asked.split,), asked.data, asked.data_root, asked.classes, share
    ):
        _say(line)
    if asked.image_scale:
        image_sizes.scale_images(config, asked.image_scale)
    shown: list[tuple[str, pages.Sample]] = []
    folder.mkdir(parents=True, exist_ok=True)
    for sample in samples.draw_samples(config, asked.split, asked.count, asked.seed):
        name = f"{asked.split}_{len(shown):03d}.png"
        Image.fromarray(pages.draw(sample)).save(folder / name)
        shown.append((name, sample))
    _say("what the pipeline did to the first:")
    for step in shown[0][1].steps if shown else ():
        _say(f"  {step}")
    page = pages.write_page(folder, f"{Path(asked.config).stem}: {asked.split}", shown)
    _say(f"{len(shown)} pictures: {page}")


def _say(text: str) -> None:
    print(worded(text, _PARSER))


_PARSER = _parser()
main = command(_browse, _PARSER)
