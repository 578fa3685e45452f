"""A trained model on disk: its weights, and the config that it was trained with.

Our checkpoints carry that config as plain values. A config that came with weights is as strange as
they are: it may only name parts that OpenMMLab or we registered, so that building it runs nothing
else. mmengine's own copy of a config is program text, which is never read here.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import MODELS

from swin_dense import config_files
from swin_dense.checkpoints.files import Checkpoint
from swin_dense.errors import InputError, MissingInputError, nearest
from swin_dense.export import sessions
from swin_dense.openmmlab.engine import weights
from swin_dense.openmmlab.settings import buildable, image_sizes
from swin_dense.openmmlab.settings import config as configs

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".safetensors")
LAST = "last_checkpoint"  # the file in which mmengine writes a run's last one
# Of a checkpoint's config, what only its own run needs.
RUN = (
    *("train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler", "auto_scale_lr"),
    *("custom_hooks", "custom_imports", "load_from", "resume", "pretrained", "allow_missing"),
    *("work_dir", "experiment_name", "launcher"),
)
TUPLE, PAIRS = "__tuple__", "__pairs__"  # keys that stand for what JSON has no form for


def find(
    config: str | Path | Config | None,
    source: str | Path | None,
    options: Mapping[str, Any] | None = None,
    image_scale: tuple[int, int] | None = None,
    say: Callable[[str], None] = print,
    trust_config: bool = False,
) -> tuple[Config, Checkpoint]:
    """Find weights and the config for them.

    Images get the scale that the checkpoint's config has, whatever another config says, unless
    `image_scale` or one of `options` asks for another one.

    Args:
        config: a config's name, path or object; a run's folder; a checkpoint; or None, for the
            config that the checkpoint carries.
        source: a checkpoint (a path, an address or a name of the authors' weights) or a run's
            folder, for its last one; None if `config` is one of these.
        options: dotted key -> value, laid over the config.
        image_scale: (longer, shorter side) that images are fitted into.
        say: is told what was stated and is another now: a scale, which the checkpoint has
            otherwise, and channels.
        trust_config: run a config's file as a program, see `configs.load`.

    Returns:
        a config of its own, which may be changed, and the checkpoint.

    Raises:
        InputError: there is no such config or checkpoint, or no config is named or carried.
    """
    config, source = _told_apart(config, source)
    if Path(source).suffix in sessions.READERS:
        raise InputError(
            f"checkpoint: {source} is a file for another runtime: it predicts, and gives no "
            "weights. Its certificate, beside it, says how good it is; here, name the checkpoint "
            "that it was made of."
        )
    folder = Path(source) if Path(source).is_dir() else None
    checkpoint = weights.read(str(last_checkpoint(folder) if folder else source))
    options = dict(options or {})
    carried = read_config(checkpoint)
    if config is None and carried is None and folder:
        config = _dumped_config(folder)
    if config is None:
        found = carried or _no_config(checkpoint)
        configs.lay_over(found, options)
    else:
        found = _named_config(config, options, say, trust_config)
        asked = image_scale or any("pipeline" in key for key in options)
        trained_at = carried and image_sizes.test_scale(carried)
        stated = image_sizes.test_scale(found)
        if trained_at and stated != trained_at and not asked:
            image_scale = trained_at
            say(
                f"image scale: {_sides(trained_at)}, as {checkpoint.source} was trained, not "
                f"{_sides(stated)} as the config says. Ask for an image scale to have another one."
            )
    if image_scale:
        image_sizes.scale_images(found, image_scale)
    return found, checkpoint


def write_config(config: Config) -> dict[str, Any]:
    """Return a config as values that JSON can hold, for `read_config`.

    Classes and functions become their names, other objects what they are printed as.
    """
    name = Path(config.filename).name if config.filename else None
    return {"file": name, "values": _plain(config.to_dict())}


def read_config(checkpoint: Mapping[str, Any]) -> Config | None:
    """Return the config that a checkpoint carries, without what only its own run needs.

    Raises:
        InputError: it names something to build that nobody registered, or is none of ours.
    """
    carried = (checkpoint.get("meta") or {}).get("config")
    if not isinstance(carried, Mapping):
        return None
    try:
        values = _restored(carried["values"])
        kept = {name: part for name, part in values.items() if name not in RUN}
        config = Config(kept, format_python_code=False)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"checkpoint: the config it carries cannot be read ({error!r}). Name a config."
        ) from error
    if lacking := [name for name in configs.REQUIRED if name not in config]:
        raise InputError(
            f"checkpoint: the config it carries lacks {', '.join(lacking)}. Name a config."
        )
    for name in buildable.foreign_names(config._cfg_dict):
        raise _refused(name)
    vars(config)["_filename"] = str(carried["file"]) if carried.get("file") else None
    return config


def last_checkpoint(folder: Path) -> Path:
    """Return the last checkpoint of a run, wherever its folder was moved to.

    Raises:
        InputError: the folder holds none.
    """
    note = folder / LAST
    if note.is_file():
        noted = folder / Path(note.read_text().strip()).name
        if noted.is_file():
            return noted
    numbered = {}
    for path in folder.glob("*.pth"):
        if match := re.fullmatch(r"(?:iter|epoch)_(\d+)", path.stem):
            numbered[int(match[1])] = path
    if numbered:
        return numbered[max(numbered)]
    half = folder / "weights_fp16.safetensors"
    if half.is_file():
        return half
    there = sorted(entry.name for entry in folder.iterdir())
    raise InputError(
        f"checkpoint: the folder {folder} holds no checkpoint of a run (iter_*.pth, epoch_*.pth, "
        f"weights_fp16.safetensors); it has {', '.join(there[:5]) or 'nothing in it'}."
    )


def _told_apart(
    config: str | Path | Config | None, source: str | Path | None
) -> tuple[str | Path | Config | None, str | Path]:
    """Say which of two arguments is the config and which are the weights."""
    if config is not None and source is not None:
        return config, source
    alone = config if source is None else source
    if isinstance(alone, str | Path):
        path = Path(alone)
        if path.is_dir() or path.suffix in (*SUFFIXES, *sessions.READERS):
            return None, alone
        is_config = path.suffix == ".py" or str(alone) in config_files.names()
        if source is not None and not is_config:  # an address, a name of the authors' weights
            return None, alone
        if len(path.parts) > 1 and not is_config:
            raise MissingInputError(f"checkpoint: there is no file or folder {alone}.")
    got = "a Config" if isinstance(alone, Config) else alone or "neither"
    raise InputError(
        "weights: a config alone has random weights. Name a checkpoint as well, or only a "
        f"checkpoint of ours or the folder of a run; got {got}."
    )


def _named_config(
    config: str | Path | Config,
    options: Mapping[str, Any],
    say: Callable[[str], None],
    trust_config: bool,
) -> Config:
    if not isinstance(config, Config):
        return configs.load(config, options, say, trust_config)
    found = Config(config.to_dict(), format_python_code=False)
    vars(found)["_filename"] = config.filename
    return configs.complete(found, config.filename or "the config", options, say)


def _dumped_config(folder: Path) -> Path | None:
    """Return the config that mmengine wrote into the folder of a run, if it is the only one."""
    found = sorted(folder.glob("*.py"))
    return found[0] if len(found) == 1 else None


def _no_config(checkpoint: Checkpoint) -> Config:
    stated = (checkpoint.get("meta") or {}).get("config")
    is_name = isinstance(stated, str) and re.fullmatch(r"[\w.-]+\.py", stated)
    hint = f" It was trained with {stated}." if is_name else ""
    raise InputError(
        f"checkpoint: {checkpoint.source} does not carry the config it was trained with, as those "
        f"of our runs do. Name a config as well.{hint}"
    )


def _sides(scale: tuple[int, int] | None) -> str:
    return ",".join(map(str, scale)) if scale else "the full size"


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, tuple):
        return {TUPLE: [_plain(item) for item in value]}
    if isinstance(value, list | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: _plain(item) for key, item in value.items()}
        return {PAIRS: [[_plain(key), _plain(item)] for key, item in value.items()]}
    if callable(value) and hasattr(value, "__qualname__"):  # a config in Python code may hold it
        return f"{value.__module__}.{value.__qualname__}"
    return str(value)


def _restored(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_restored(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if value.keys() == {TUPLE}:
        return tuple(_restored(value[TUPLE]))
    if value.keys() == {PAIRS}:
        return {_restored(key): _restored(item) for key, item in value[PAIRS]}
    return {key: _restored(item) for key, item in value.items()}


def _refused(name: Any) -> InputError:
    scopes = sorted(MODELS.root.children)
    return InputError(
        f"checkpoint: the config it carries wants {name!r} to be built, which is no registered "
        f"name; building it could run anything.{nearest(str(name).partition('.')[0], scopes)} "
        "If it is a part of your own, import its module first. Or name the config."
    )
