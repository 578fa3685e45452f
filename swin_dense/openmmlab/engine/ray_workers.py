"""Look at images in several processes at once, on this machine or on all of a Ray cluster.

Each worker holds the model and reads the images it is given. What it finds comes back to this
process, which alone writes: Ray gives the images of a worker that died to another one, and nothing
is written twice.
"""

import collections
import contextlib
import logging
import os
import pickle
import platform
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from swin_dense.datasets.sources import Picture, Source
from swin_dense.errors import InputError, extra_of_ours

ATTEMPTS = 3  # to load the model, or to look at the same images, that may end a worker
LOADING = -1  # among the numbers of groups of images: the model
MOST = 64  # images that are given to a worker at once
SHARES = 16  # groups of images for each worker, so that all end at about the same time
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}


@dataclass(frozen=True)
class Look:
    """How workers load the model and look at images.

    Attributes:
        loading: what `predictor.load` takes; its paths are those of each machine.
        weights: sha256 of the weights that they must find there.
        looking: what `Predictor.stream` takes.
        draw: whether each result is drawn.
    """

    loading: Mapping[str, Any]
    weights: str
    looking: Mapping[str, Any] = field(default_factory=dict)
    draw: bool = False


class Found(NamedTuple):
    """What a worker says of an image: `row` is the result as plain values, or {"error": ...}.

    `drawing` is a PNG file, if asked for; `by` is the worker.
    """

    name: str
    row: dict[str, Any]
    drawing: bytes | None
    by: str


def require() -> Any:
    """Import Ray, with Ray Data.

    Raises:
        InputError: it does not import; with what to do.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        text = f"ray: it does not import ({error}). {extra_of_ours('ray')}"
        raise InputError(text) from error
    return ray


def stream(
    source: Source,
    look: Look,
    workers: int | None = None,
    address: str | None = None,
    say: Callable[[str], None] = print,
) -> Generator[Found, None, None]:
    """Find what is in each image of a source, in the order in which workers are done with them.

    Args:
        source: files, addresses or tables; `name` tells its images apart.
        workers: processes that hold the model; if None, one for each GPU of the cluster, without
            GPUs one for each four processors.
        address: of a Ray cluster that runs; None starts one on this machine for as long as this
            takes, unless RAY_ADDRESS names one.
        say: is told what a user should know.

    Yields:
        what was found in an image, once for each.

    Raises:
        InputError: Ray or the model cannot be used as asked, a picture of the source is in this
            process alone, or workers died again and again over the same images.
    """
    if source.count is None:
        raise InputError(
            "`engine` ray: frames of a video or a camera come one after the other, so there is "
            "nothing to share out. Leave `engine` out, or write the frames as image files."
        )
    ray = require()
    with _cluster(ray, address):
        count, cpus, gpus = _places(ray, workers, look.loading.get("device"))
        most = max(look.looking.get("batch", 1), -(-source.count // (count * SHARES)))
        names: list[str] = []
        sent = enumerate(_groups(source, min(most, MOST), names))
        groups = [{"number": number, "pictures": group} for number, group in sent]
        if not groups:
            return
        told = {"look": look, "folder": os.getcwd(), "threads": cpus, "workers": count}
        told["attempts"] = ray.remote(num_cpus=0)(_Attempts).remote()
        with _data_is_quiet(ray):
            answers = ray.data.from_items(groups, override_num_blocks=len(groups)).map_batches(
                _Worker,
                fn_constructor_kwargs=told,
                batch_size=None,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=count),
                num_cpus=cpus,
                num_gpus=gpus,
            )
            yield from _once(answers, names, count, say)


def _once(
    answers: Any, names: list[str], count: int, say: Callable[[str], None]
) -> Iterator[Found]:
    """Yield each image that comes back once, and see that all do."""
    left, seen = dict.fromkeys(names), set[str]()
    for answer in answers.iter_rows():
        mistake, found = pickle.loads(answer["found"])
        if mistake:
            raise InputError(mistake)
        if found.by not in seen and len(seen) >= count:
            say(f"a worker died: {found.by} took its place, and its images are looked at again")
        seen.add(found.by)
        if found.name in left:
            del left[found.name]
            yield found
    if left:
        raise InputError(
            f"ray: {len(left)} images came back from no worker, {next(iter(left))} first. Start "
            "again: what is done is kept."
        )


class _Attempts:
    """Count what workers begin and do not end, in an actor of its own, which outlives them."""

    def __init__(self) -> None:
        self._begun: collections.Counter[int] = collections.Counter()

    def begin(self, number: int) -> int:
        """Return how often this was begun, with this time, since it was last done."""
        self._begun[number] += 1
        return self._begun[number]

    def end(self, number: int) -> None:
        """Take note that a group of images is done, for which the model was loaded."""
        del self._begun[number], self._begun[LOADING]


def _groups(source: Source, most: int, names: list[str]) -> Iterator[bytes]:
    """Yield pictures by groups in the form in which they are sent; gather their names."""
    group: list[Picture] = []
    for picture in source:
        names.append(picture.name)
        group.append(picture)
        if len(group) == most:
            yield _sent(group)
            group = []
    if group:
        yield _sent(group)


def _sent(group: list[Picture]) -> bytes:
    try:
        return pickle.dumps(group)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"`engine` ray: {group[0].name} cannot be sent to another process ({error}). Files, "
            "addresses and tables can."
        ) from error


class _Worker:
    """The model in a process of its own.

    A user's mistake is answered, not raised: Ray would make a traceback of it.
    """

    def __init__(self, look: Look, folder: str, threads: int, workers: int, attempts: Any) -> None:
        import ray
        import torch

        from swin_dense.openmmlab.engine import predictor

        torch.set_num_threads(threads)
        self._look, self._attempts, self._mistake = look, attempts, ""
        self._by = f"process {os.getpid()} on {platform.node()}"
        try:
            if ray.get(attempts.begin.remote(LOADING)) > ATTEMPTS * workers:
                raise InputError(
                    "ray: workers died again and again before they looked at an image. Is the "
                    f"memory enough for {workers} of them? Start again with fewer `workers`."
                )
            os.chdir(folder)
            self._model = predictor.load(**look.loading)
            if self._model.weights["sha256"] != look.weights:
                raise InputError(
                    f"{self._model.weights['file']}: {self._by} finds other weights under this "
                    "name than this machine. Copy them there."
                )
        except InputError as error:
            self._mistake = str(error)
        except OSError as error:
            self._mistake = (
                f"{folder}: {self._by} has no such folder ({error.strerror}). Images, config and "
                "weights have to lie at the same place on each machine; start from a folder there."
            )

    def __call__(self, batch: Any) -> Iterator[Any]:
        import pyarrow
        import ray

        def answered(mistake: str, found: Found | None = None) -> Any:
            return pyarrow.table({"found": [pickle.dumps((mistake, found))]})

        if self._mistake:
            yield answered(self._mistake)
            return
        try:
            for row in batch.to_pylist():
                group = pickle.loads(row["pictures"])
                if ray.get(self._attempts.begin.remote(row["number"])) > ATTEMPTS:
                    which = group[0].name
                    if len(group) > 1:
                        which = f"one of {len(group)} images, {which} to {group[-1].name}"
                    raise InputError(
                        f"ray: {ATTEMPTS} workers died over {which}. Leave it out, or start again "
                        "with fewer `workers` if it was for lack of memory: what is done is kept."
                    )
                yield from (answered("", found) for found in self._found(group))
                self._attempts.end.remote(row["number"])
        except InputError as error:
            yield answered(str(error))

    def _found(self, group: list[Picture]) -> Iterator[Found]:
        from swin_dense.report import journal, pictures

        lost: list[Found] = []

        def skip(picture: Picture, error: InputError) -> None:
            lost.append(Found(picture.name, {"error": str(error)}, None, self._by))

        row = Source(lambda: iter(group), len(group))
        for result in self._model.stream(row, skip=skip, **self._look.looking):
            drawing = pictures.png(result.draw()) if self._look.draw else None
            yield Found(result.name, journal.row_of(result), drawing, self._by)
        yield from lost


@contextlib.contextmanager
def _cluster(ray: Any, address: str | None) -> Iterator[None]:
    """Join a cluster, or have one on this machine; one that the caller has joined is left alone."""
    if ray.is_initialized():
        yield
        return
    own = [Path(entry or ".").resolve() for entry in sys.path]
    shared = (Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve())
    path = [str(entry) for entry in own if not any(entry.is_relative_to(p) for p in shared)]
    address = address or os.environ.get("RAY_ADDRESS")
    try:
        ray.init(
            address=address,
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level="error",
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(path)}},
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(
            f"`ray_address`: no cluster can be joined at {address or 'this machine'} "
            f"({str(error).splitlines()[0]}). `ray status` on its head tells whether it runs."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _data_is_quiet(ray: Any) -> Iterator[None]:
    """Leave out plans and bars of Ray Data."""
    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before = context.enable_progress_bars, context.print_on_execution_start, logger.level
    context.enable_progress_bars = context.print_on_execution_start = False
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        context.enable_progress_bars, context.print_on_execution_start = before[:2]
        logger.setLevel(before[2])


def _places(ray: Any, workers: int | None, device: str | None) -> tuple[int, int, int]:
    """Return the number of workers, and how many processors and GPUs each has for itself.

    Raises:
        InputError: the cluster has no room for so many, or Ray is told which card to take.
    """
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in resources]
    cpus, cards = (sum(numbers) for numbers in zip(*nodes, strict=True))
    if device not in (None, "cpu", "cuda"):
        raise InputError(f"`device`: cpu or cuda; Ray gives each worker a card, not {device}.")
    if device == "cuda" and not cards:
        raise InputError("`device`: the cluster has no GPU that Ray knows of. Leave it out.")
    on_cards = cards > 0 and device != "cpu"
    count = workers or (cards if on_cards else max(1, cpus // 4))
    if not on_cards:
        nodes = [(cpu, cpu) for cpu, _ in nodes]
    room = sum(min(node) for node in nodes)
    if count > room:
        what = "a GPU and a processor" if on_cards else "a processor"
        raise InputError(f"`workers`: each needs {what}; the cluster has {room}, not {count}.")
    return count, _each(nodes, count), int(on_cards)


def _each(nodes: list[tuple[int, int]], workers: int) -> int:
    """Return how many processors each worker can have, all of them on one machine.

    Args:
        nodes: (processors, workers that may be there at most) of each machine.
    """
    most = max(cpus for cpus, _ in nodes)
    fitting = (n for n in range(most, 1, -1) if sum(min(c // n, m) for c, m in nodes) >= workers)
    return next(fitting, 1)
