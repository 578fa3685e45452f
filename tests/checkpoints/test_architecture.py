"""An architecture made up here: what it registers is all that its weights need."""

import pytest
import torch

from swin_dense.checkpoints import architecture, downloads, files, fitting, ledger, suspicious
from swin_dense.checkpoints.architecture import Architecture, Layout, Order, Published, Rows
from swin_dense.checkpoints.layouts import UnknownWeightsError, convert, export, known
from swin_dense.checkpoints.names import same, under
from swin_dense.checkpoints.resizing import PLACE_MAP
from swin_dense.errors import InputError

WIDTHS, DEPTHS = (5, 7, 11), (2, 1, 3)  # the widths follow no rule

BLOCK = {"gate.weight": "C 1 3 3", "up.weight": "3C C", "up.bias?": "3C", "scale*": "C"}
ROWS = Rows(
    stem={"stem.weight": "C I P P", "places?": "1 C H W"},
    block=under("stages.{stage}.{block}.", BLOCK),
    entrance={"steps.{stage}.weight": "C c 2 2"},
    output={"norm{stage}.weight*": "C", "norm{stage}.bias*": "C"},
)
NAMES = same("stem.weight", "places", "steps.{stage}.weight") | under(
    "stages.{stage}.{block}.", same(*(row.rstrip("?*") for row in BLOCK)), "stages.{stage}.{block}."
)
DENSE = Layout(
    "authors' Toy", table=NAMES | same("norm{stage}.{end}"), marks=("norm{stage}.{end}",)
)
CLASSIFIER = Layout(
    "authors' Toy classifier",
    table=NAMES | {"norm.{end}": "norm{last}.{end}"},
    dropped={"fc.{end}": architecture.CLASSES},
)
# Counts from 1, has query, key and value apart, and the channels of an entrance upside down.
OTHER = Layout(
    "another Toy",
    table={
        "patch.weight": "stem.weight",
        "layer{stage+1}.{block}.depthwise.weight": "stages.{stage}.{block}.gate.weight",
        "layer{stage+1}.{block}.q.{end}": "stages.{stage}.{block}.up.{end}[q]",
        "layer{stage+1}.{block}.k.{end}": "stages.{stage}.{block}.up.{end}[k]",
        "layer{stage+1}.{block}.v.{end}": "stages.{stage}.{block}.up.{end}[v]",
        "layer{stage+1}.{block}.gamma": "stages.{stage}.{block}.scale",
        "layer{stage+1}.enter.weight": "steps.{stage}.weight",
        "norm{stage}.{end}": "norm{stage}.{end}",
    },
    orders=(Order("steps.{stage}.weight", lambda x: x.flip(0), lambda x: x.flip(0)),),
)
FILES = (
    Published("toy_small_64", "https://example.org/v1/toy_small.pth", 64, "shapes", 71.5, "MIT"),
    Published("toy_large_64", "https://example.org/v1/toy_large.pth", 64, "shapes", None, "MIT"),
)


def too_large(state):
    return "has a stem that grew." if float(state["stem.weight"].abs().max()) > 1e3 else ""


TOY = Architecture(
    "Toy",
    ROWS,
    layouts=(DENSE, CLASSIFIER, OTHER),
    published=FILES,
    resized={"places": PLACE_MAP},
    suspicious=lambda state: too_large(state) if "stem.weight" in state else "",
    look_alikes={r".*\.moe\..*": "a Toy with experts"},
)


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setattr(architecture, "_known", {})
    architecture.register(TOY)


def shapes_of(widths=WIDTHS, depths=DEPTHS, places=None):
    """By hand, without the table."""
    shapes = {"stem.weight": (widths[0], 3, 4, 4)}
    if places:
        shapes["places"] = (1, widths[0], *places)
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        if stage:
            shapes[f"steps.{stage}.weight"] = (width, widths[stage - 1], 2, 2)
        for block in range(depth):
            at = f"stages.{stage}.{block}."
            shapes |= {at + "gate.weight": (width, 1, 3, 3), at + "up.weight": (3 * width, width)}
            shapes |= {at + "up.bias": (3 * width,), at + "scale": (width,)}
        shapes |= {f"norm{stage}.weight": (width,), f"norm{stage}.bias": (width,)}
    return shapes


def drawn(shapes, seed=2):
    random = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}


def toy(**changes):
    return drawn(shapes_of(**changes))


def classifier(state):
    """As the authors' classifier would be: one norm, and a head."""
    kept = {n: t for n, t in state.items() if not n.startswith(("norm0.", "norm1."))}
    kept = {n.replace("norm2.", "norm."): t for n, t in kept.items()}
    return kept | {"fc.weight": torch.ones(9, 11), "fc.bias": torch.ones(9)}


def on_disk(folder, content, name="w.pth"):
    torch.save(content, folder / name)
    return files.read(folder / name)


# --- Reading and writing -------------------------------------------------------------------------


def test_its_layouts_are_listed():
    assert known() == ("authors' Toy", "authors' Toy classifier", "another Toy")


def test_a_classifier_is_read():
    state = toy()
    found = convert(classifier(state))
    assert (found.layout, found.architecture, found.whole) == (
        "authors' Toy classifier",
        "Toy",
        False,
    )
    assert found.dropped == dict.fromkeys(["fc.weight", "fc.bias"], "classification head")
    assert found.state.keys() == {n for n in state if not n.startswith(("norm0.", "norm1."))}
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.state.items())


def test_another_project_s_names_and_orders():
    state = toy()
    theirs = export(state, "another Toy")
    width = WIDTHS[2]
    up = state["stages.2.1.up.weight"]
    assert torch.equal(theirs["layer3.1.k.weight"], up[width : 2 * width])
    assert torch.equal(theirs["layer2.enter.weight"][0], state["steps.1.weight"][6])
    assert "layer1.enter.weight" not in theirs
    found = convert(theirs)
    assert found.layout == "another Toy"
    assert found.state.keys() == state.keys()
    assert all(torch.equal(found.state[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("before", "phrase"),
    [
        ("module._orig_mod.", ""),
        ("student.backbone.", " behind 'backbone.'"),
        ("backbone.bottom_up.", " in detectron2 with a feature pyramid"),
    ],
)
def test_wrappers_are_peeled_for_it_too(before, phrase):
    state = toy()
    found = convert({before + name: tensor for name, tensor in state.items()})
    assert found.layout == "authors' Toy" + phrase
    assert found.state.keys() == state.keys()


def test_a_detector_of_another_project():
    state = {f"backbone.{n}": t for n, t in toy().items()} | {"neck.fc.weight": torch.ones(2, 3)}
    theirs = export(state, "another Toy in a detector")
    assert {"backbone.patch.weight", "neck.fc.weight"} < theirs.keys()
    found = convert({f"model.{name}": tensor for name, tensor in theirs.items()})
    assert (found.layout, found.whole) == ("another Toy in a detector", True)
    assert found.state.keys() == state.keys()


@pytest.mark.parametrize(("word", "whole"), [("teacher", True), ("ema", False)])
def test_an_average_is_told(tmp_path, word, whole):
    state = toy()
    other = drawn(shapes_of(), seed=3)
    content = {f"{word}.{name}": tensor for name, tensor in other.items()}
    if whole:
        content |= {f"student.{name}": tensor for name, tensor in state.items()}
    loaded, account = fitting.fit(state, on_disk(tmp_path, content))
    wanted = state if whole else other
    assert all(torch.equal(loaded[name], tensor) for name, tensor in wanted.items())
    assert ("an average of the weights (ema)" in account.layout) == (not whole)
    assert len(account.unused) == (len(state) if whole else 0)


# --- Refusing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"stages.2.1.up.weight": None}, "stages.2.1.up.weight is missing"),
        ({"stages.0.1.up.bias": None}, "stages.0.1.up.bias is missing, though others"),
        ({"norm1.bias": None}, "norm1.bias is missing, though others"),
        ({"steps.1.weight": None}, "steps.1.weight is missing"),
        ({"steps.2.weight": (11, 6, 2, 2)}, r"steps.2.weight is \(11, 6, 2, 2\) where \(11, 7, 2"),
        ({"stages.1.0.up.bias": (20,)}, r"stages.1.0.up.bias is \(20,\) where \(21,\) belongs"),
        ({"stages.1.0.extra": (7,)}, "stages.1.0.extra has no place"),
        ({"stem.weight": (5, 48)}, r"stem.weight is \(5, 48\) where \(C, I, P, P\) belongs"),
    ],
)
def test_what_is_not_whole_is_refused(change, says):
    shapes = {n: s for n, s in {**shapes_of(), **change}.items() if s is not None}
    with pytest.raises(UnknownWeightsError, match=says):
        convert(drawn(shapes))


def test_tensors_of_two_stages_that_changed_places_are_refused():
    state = toy()
    one, two = "stages.0.0.up.weight", "stages.1.0.up.weight"
    with pytest.raises(UnknownWeightsError, match=rf"{one} is \(21, 7\) where \(15, 5\)"):
        convert(state | {one: state[two], two: state[one]})


def test_its_look_alikes_are_called_by_their_name():
    with pytest.raises(
        UnknownWeightsError, match=r"By their names they are of a Toy with experts\."
    ):
        convert(toy() | {"stages.0.0.moe.weight": torch.ones(1)})


def test_its_suspicious_numbers_are_refused():
    state = toy()
    suspicious.refuse_suspicious(state, "w.pth")
    state["stem.weight"] *= 1e4
    with pytest.raises(InputError, match=r"checkpoint: w\.pth has a stem that grew\."):
        suspicious.refuse_suspicious({f"backbone.{n}": t for n, t in state.items()}, "w.pth")


def test_nothing_registered_is_told(monkeypatch):
    monkeypatch.setattr(architecture, "_known", {})
    with pytest.raises(UnknownWeightsError, match="no architecture is registered"):
        convert(toy())


# --- Loading -------------------------------------------------------------------------------------


def test_a_classifier_into_a_backbone(tmp_path):
    """Norms of the maps that it lacks are no loss; places of another image are resized."""
    state = toy(places=(3, 4))
    model = toy(places=(5, 2))
    loaded, account = fitting.fit(model, on_disk(tmp_path, {"model": classifier(state)}))
    assert set(account.random) == {ledger.NORMS}
    assert set(account.random[ledger.NORMS]) == {
        f"norm{stage}.{end}" for stage in (0, 1) for end in ("weight", "bias")
    }
    assert account.share == 1
    assert [r.how for r in account.resized] == ["place embedding 3x4 -> 5x2 patches, bicubic"]
    assert torch.equal(loaded["norm2.bias"], state["norm2.bias"])


def second():
    """A second architecture of other names."""
    rows = Rows(stem={"start.weight": "C I P P"}, block={"body.{stage}.{block}.weight": "C C"})
    table = {
        "start.weight": "start.weight",
        "b.{stage}.{block}.weight": "body.{stage}.{block}.weight",
    }
    files_of = tuple(
        Published(name, f"https://example.org/{name}.pth", 32, "shapes", None, "MIT")
        for name in ("second_big", "toy_smaller_64")
    )
    return Architecture("Second", rows, (Layout("authors' Second", table),), files_of)


def other_weights(width=6):
    shapes = {f"b.0.{block}.weight": (width, width) for block in range(3)}
    return drawn({"start.weight": (width, 3, 2, 2), **shapes})


@pytest.mark.parametrize("part", ["backbone", "model"])
def test_weights_of_another_architecture(tmp_path, part):
    """One message: what the file is, what the model is, what to do."""
    architecture.register(second())
    before = "backbone." if part == "model" else ""
    model = {before + name: tensor for name, tensor in toy().items()}
    checkpoint = on_disk(tmp_path, other_weights())
    checkpoint.source = "second_big"
    _, account = fitting.fit(model, checkpoint, part=part)
    place = "the backbone is" if part == "backbone" else "the model's backbone is"
    with pytest.raises(InputError) as refusal:
        account.require(0.95, "Try another.")
    assert str(refusal.value) == (
        "checkpoint: second_big holds weights of Second (found: authors' Second), but "
        f"{place} Toy. Take weights of Toy, or change the backbone to Second. "
        "For example toy_small_64."
    )
    assert any("another architecture: second_big" in line for line in account.comparison())


def test_the_nearest_published_name_is_told(tmp_path):
    architecture.register(second())
    checkpoint = on_disk(tmp_path, other_weights())
    checkpoint.source = "toy_smaller_64"
    _, account = fitting.fit(toy(), checkpoint, part="backbone")
    with pytest.raises(InputError, match=r"Did you mean 'toy_small_64'\?"):
        account.require(0.95, "")


def test_look_alikes_are_another_architecture_too(tmp_path):
    state = {n.replace("up", "moe.up"): t for n, t in toy().items()}
    _, account = fitting.fit(toy(), on_disk(tmp_path, state), part="backbone")
    with pytest.raises(InputError, match=r"holds weights of a Toy with experts, but the backbone"):
        account.require(0.95, "")


def test_the_same_architecture_of_another_size_is_compared(tmp_path):
    checkpoint = on_disk(tmp_path, toy(widths=(4, 8, 9)))
    _, account = fitting.fit(toy(), checkpoint, part="backbone")
    with pytest.raises(InputError, match=r"Whole comparison:(.|\n)*\(15, 5\) in the model"):
        account.require(0.95, "")


def test_its_published_files_are_fetched_by_name(monkeypatch, tmp_path):
    monkeypatch.setenv("SWIN_DENSE_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"Download https://example\.org/v1/toy_small\.pth"):
        downloads.locate("toy_small_64")
    assert downloads.hint("toy_smal_64") == " Did you mean 'toy_small_64'?"
    assert downloads.hint("epoch_12.pth") == ""


# --- Registering ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (Architecture("Toy", ROWS, ()), "the weights of 'Toy' are registered already"),
        (Architecture("New", ROWS, (OTHER,)), "New: a layout called 'another Toy' is registered"),
        (
            Architecture("New", ROWS, (Layout("a", {}), Layout("a", {}))),
            "New: a layout called 'a' is registered already",
        ),
        (
            Architecture("New", ROWS, (), published=FILES[:1]),
            "New: a published file called 'toy_small_64' is registered already",
        ),
        (
            Architecture(
                "New", ROWS, (Layout("a", {"x.{end}": "stages.{stage}.{block}.down.{end}"}),)
            ),
            "New: a names stages.{stage}.{block}.down.{end}, which has no row",
        ),
    ],
)
def test_what_cannot_be_registered(made, says):
    with pytest.raises(ValueError, match=f"^{says.replace('{', '.').replace('}', '.')}"):
        architecture.register(made)
    assert architecture.registered() == (TOY,)


def test_a_shape_must_be_one():
    rows = Rows(stem={"stem.weight": "C C+1"}, block={"b.{block}.w": "C"})
    architecture.register(
        Architecture(
            "New", rows, (Layout("new", {"s": "stem.weight", "b.{block}": "b.{block}.w"}),)
        )
    )
    with pytest.raises(ValueError, match=r"stem.weight: 'C\+1' is no size"):
        convert({"s": torch.ones(2, 3), "b.0": torch.ones(2)})
