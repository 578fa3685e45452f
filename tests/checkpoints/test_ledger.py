"""The account of a load: shares counted by hand, short on the console, whole in the record."""

import json

import pytest

from swin_dense.checkpoints import ledger
from swin_dense.checkpoints.ledger import Ledger
from swin_dense.checkpoints.resizing import Resized
from swin_dense.errors import InputError

TABLE = "layers.0.blocks.1.attn.relative_position_bias_table"


def account(**changes):
    """36 of 50 numbers loaded, 3 of 6 tensors; 4 numbers of 1 tensor lost."""
    values = dict(
        source="some/w.pth",
        sha256="0123456789abcdef" * 4,
        layout="official Swin V1 classification",
        part="backbone",
        loaded={"a.weight": (2, 3), "b.weight": (5, 5), TABLE: (5,)},
        resized=(Resized(TABLE, (3,), (5,), "bias table 1x1 -> 2x2 window, bicubic"),),
        random={
            ledger.RESHAPED: {"c.weight": (4,)},
            ledger.NORMS: {"norm0.weight": (5,), "norm1.weight": (5,)},
        },
        reshaped={"c.weight": (7,)},
        unused={"head.weight": "classification head", "head.bias": "classification head"},
        suspicious=(),
    )
    return Ledger(**{**values, **changes})


def test_the_share_is_the_lower_of_numbers_and_tensors():
    assert account().share == 3 / 4  # tensors; of the numbers it is 36 / 40
    assert account(random={}).share == 1
    assert account(random={ledger.NORMS: {"norm0.weight": (5,)}}).share == 1
    big = {ledger.ABSENT: {"c.weight": (1000,)}}
    assert account(random=big).share == 36 / 1036


def test_a_few_lines_for_the_eye():
    assert account().lines() == [
        "weights: some/w.pth (sha256 0123456789ab)",
        "  found: official Swin V1 classification",
        "  loaded: 3 of 6 tensors, 72 % of the backbone's numbers; 1 of them resized "
        "(bias table 1x1 -> 2x2 window, bicubic)",
        "  at random, another shape in the file: c.weight (4 numbers)",
        "  at random, norms of the maps, which classification files lack: "
        "norm[01] (2 tensors, 10 numbers)",
        "  unused: 2 of the file's tensors (2 classification head)",
    ]


def test_the_good_case_is_three_lines():
    assert len(account(random={}, unused={}).lines()) == 3
    counters = {ledger.COUNTERS: {"bn.num_batches_tracked": ()}}
    assert len(account(random=counters, unused={}).lines()) == 3


def test_all_of_it_is_never_rounded_up():
    nearly = account(loaded={"a": (99999,)}, random={ledger.ABSENT: {"b": (1,)}})
    assert "99.9 % of" in nearly.lines()[2]


def test_too_little_is_refused_with_the_whole_comparison():
    random = {ledger.ABSENT: {f"layers.{i}.x.weight": (2, 1) for i in range(9)}}
    random[ledger.ABSENT] |= {f"part{i}{'y' * i}.weight": (1,) for i in range(7)}
    lacking = account(random={**account().random, **random})
    lacking.require(0.1, "")
    with pytest.raises(InputError) as refusal:
        lacking.require(0.95, "Try another.")
    text = str(refusal.value)
    assert "95% of its tensors and numbers are needed, 15" in text
    assert "layers.[0-8].x (9 tensors, 18 numbers)" in text
    assert "c.weight: (4,) in the model, (7,) in it" in text
    for i in range(7):
        assert f"    part{i}{'y' * i}.weight (1 number)" in text  # none is left out
    assert "head (2 tensors)" in text
    assert text.endswith("Try another.")


def test_the_record_holds_every_name():
    record = json.loads(json.dumps(account(suspicious=("odd",)).record()))
    assert record["file"] == "some/w.pth"
    assert len(record["sha256"]) == 64
    assert record["share"] == 0.75
    assert record["loaded"] == {"tensors": 3, "numbers": 36}
    assert record["resized"][0]["from"] == [3]
    assert record["random"][ledger.RESHAPED] == {
        "c.weight": {"shape": [4], "numbers": 4, "in_file": [7]}
    }
    assert set(record["random"][ledger.NORMS]) == {"norm0.weight", "norm1.weight"}
    assert record["unused"] == dict.fromkeys(["head.weight", "head.bias"], "classification head")
    assert record["suspicious"] == ["odd"]


NAMES = ["backbone.norm0.weight", "neck.fpn.0.weight", "roi_head.bbox_head.fc.bias", "necklace.w"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("neck", [1]),
        ("neck.*", [1]),
        ("roi_head.bbox_head", [2]),
        ("*.bias", [2]),
        ("norm0", [0]),
        ("backbone.norm0", [0]),
        ("backbone", [0]),
        ("*", [0, 1, 2, 3]),
        ("eck", []),
    ],
)
def test_patterns_speak_of_names(pattern, found):
    assert ledger.allowed(NAMES, [pattern]) == {NAMES[i] for i in found}


def test_names_of_a_bare_backbone_answer_to_both():
    assert ledger.allowed(["norm0.weight"], ["backbone.norm0"]) == {"norm0.weight"}


def test_a_pattern_without_meaning_is_refused():
    ledger.require_meaning(["neck", "norm0"], NAMES)
    with pytest.raises(InputError, match=r"`allow_missing` neek: .* Did you mean 'neck'"):
        ledger.require_meaning(["norm0", "neek"], NAMES)


def test_groups_lose_no_name():
    names = {"a.0.w": (2,), "a.1.w": (3,), "b.w": (1,), "b.v": None, "c": (1, 1)}
    assert ledger.grouped(names) == [
        "a.[01] (2 tensors, 5 numbers)",
        "b (2 tensors)",
        "c (1 number)",
    ]


@pytest.mark.parametrize(
    ("numbers", "label"),
    [((3,), "a.3.w"), ((1, 2), "a.[12]"), ((1, 2, 3), "a.[1-3]"), ((1, 3), "a.[13]")]
    + [((9, 10), "a.*")],
)
def test_the_groups_can_be_given_as_patterns(numbers, label):
    names = {f"a.{i}.w": (1,) for i in numbers}
    (line,) = ledger.grouped(names)
    assert line.split(" ")[0] == label
    others = {"a.0.w": (1,), "a.77.w": (1,), "b.1.w": (1,)} if "*" not in label else {}
    assert ledger.allowed({**names, **others}, [label]) == set(names)
