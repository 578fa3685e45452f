"""What a config says is what Python would make of it; the oracle is Python itself."""

import pytest

from swin_dense.config_language.evaluator import Evaluator
from swin_dense.config_language.files import parse_python
from swin_dense.config_language.limits import Budget, MistakeError, NotDataError


def evaluated(text, **names):
    evaluator = Evaluator(names, Budget())
    evaluator.run(parse_python(text).body)
    return evaluator.names


class Keyed(dict):
    """Stands for mmengine's ConfigDict."""


PROGRAMS = [
    "a = 1\nb = a + 2 * 3 - 4 / 5 // 1 % 7\nc = 2 ** 10, -a, +a, ~a, 2 ** -1, 1 << 3, 9 >> 1",
    "a = 5 | 2, 5 & 4, 5 ^ 1, {1} | {2}, {1, 2} & {2}, {1, 2} - {2}, {'a': 1} | {'b': 2}",
    "a = [1, 2] * 3 + [4]\nb = (1,) + (2,)\nc = 'ab' * 2 + 'c'\nd = 2 * [0]",
    "a = dict(x=1, **{'y': 2}, **dict(z=3))\nb = {**a, 'w': 4}\nc = [*a, *b, *range(3)]",
    "a = [i * j for i in range(4) for j in range(i) if j % 2 == 0 if i]\nb = {i for i in a}",
    "a = {k: [v] * n for n, (k, v) in enumerate(dict(x=1, y=2).items())}",
    "x = 7\na = [x for x in range(3)]\nb = x\nc = sum(x for x in (1, 2.5)), sum([[1], [2]], [])",
    "a, (b, c) = 1, (2, 3)\n[d, e] = 'xy'\nf = g = []\nf.append(1)",
    (
        "a = [1, 2, 3, 4]\n"
        "b = a[1:], a[::-1], a[-1], 'text'[1:3], range(9)[2]\n"
        "a[1:2] = [7, 8]\n"
        "del a[0]"
    ),
    (
        "a = dict(x=dict(y=1))\n"
        "a['x']['y'] += 4\n"
        "a['x']['z'] = a['x'].pop('y')\n"
        "a.update(w=1)\n"
        "del a['w']"
    ),
    "a = [1]\nb = a\nb += (2, 3)\nb *= 2\nc = 3\nc **= 2\nc //= 2\nd = {1}\nd |= {2}",
    "a = 1 < 2 <= 2 != 3, 'a' in 'abc', 1 not in [2], None is None, 2 in range(5)",
    "a = 0 or '' or [] or 5, 1 and 2, 3 if 1 > 2 else 4, not 1",
    "a = f'{1}-{2.5:.3f}-{\"x\"!r}-{3:>4}-{[1, 2]}-{True}', f'{{}}', f'{1:{2}}'",
    (
        "a = '%s-%05d-%.2f-%(x)s' % {'x': 1} if False else '%s-%05d' % ('q', 3)\n"
        "b = '%(x)s' % dict(x=2)"
    ),
    "a = '{}-{x}-{0!r:>5}'.format(1, x=2) if False else '{0}-{x:>3}'.format(1, x=2)",
    "a = 'a,b'.split(','), '-'.join(['x', 'y']), 'Ab'.lower(), 'aa'.replace('a', 'b')",
    "a = '7'.zfill(3), ' x '.strip(), 'ab'.startswith('a')",
    (
        "a = len('abc'), len({1}), min(3, 1), max([2, 9]), min([], default=0)\n"
        "z = round(2.567, 2), round(5)"
    ),
    (
        "a = int('7'), int(2.9), int('ff', 16), float('1e-3'), str(4), bool([])\n"
        "z = abs(-3), str([1, 'a'])"
    ),
    "a = sorted([3, 1, 2], reverse=True), list(reversed((1, 2))), list(zip('ab', [1, 2]))",
    "a = tuple('ab'), list({'k': 1}), set([1, 1]), frozenset((2,)), any([0, 1]), all([])",
    (
        "if 3 > 2:\n"
        "    a = 1\n"
        "else:\n"
        "    a = 2\n"
        "b = []\n"
        "for i, c in enumerate('xy'):\n"
        "    b.append((i, c))"
    ),
    "for i in range(3):\n    pass\nelse:\n    j = i\na: int = 3\nb: float\n'text'\n1",
    (
        "a = dict.fromkeys(('x', 'y'), 0)\n"
        "a.setdefault('z', []).append(1)\n"
        "b = a.get('q', 5), a.copy()"
    ),
    (
        "a = [3, 1]\n"
        "a.sort()\n"
        "a.insert(0, 9)\n"
        "a.extend(range(2))\n"
        "a.remove(9)\n"
        "a.reverse()\n"
        "b = a.index(3), a.count(0)"
    ),
    'a = \'é\' \'x\' """\nlines\n"""\nb = 0x10, 1_000, 1e400, -0.0, 1e-400',
    "a = dict([('x', 1), ['y', 2]])\nb = dict(a, z=3)\nc = {(1, 2): 3}[1, 2]",
    "max = 3\na = max + 1\ndel max\nb = max(1, 2)",
]


@pytest.mark.parametrize("text", PROGRAMS)
def test_values_are_python_s(text):
    names = {}
    exec(text, names)
    names = {key: value for key, value in names.items() if not key.startswith("__")}
    found = evaluated(text)
    assert {k: v for k, v in found.items() if not k.startswith("__")} == names
    assert repr(found) == repr({key: names[key] for key in found})


PROGRAMS_ONLY = [
    "import os",
    "from os import system",
    "from mmengine.config import read_base",
    "with open('x') as f:\n    pass",
    "def f():\n    return 1",
    "class A:\n    x = 1",
    "@dict\nclass A:\n    pass",
    "a = lambda: 1",
    "while True:\n    pass",
    "try:\n    a = 1\nexcept Exception:\n    pass",
    "a = (b := 1)",
    "assert 1",
    "raise ValueError",
    "for i in [1]:\n    break",
    "a = open('x')",
    "a = eval('1')",
    "a = exec('1')",
    "a = compile('1', '', 'eval')",
    "a = __import__('os')",
    "a = getattr([], 'append')",
    "a = globals()",
    "a = type(1)",
    "a = ().__class__",
    "a = [].append",
    "a = ''.join.__self__",
    "a = f'{().__class__}'",
    "a = '{0.__class__}'.format(1)",
    "a = '{0[0]}'.format([1])",
    "a = '{x.y}'.format_map(dict(x=1))",
    "a = dict(x=1).x",
    "a = __builtins__",
    "a = __name__",
    "a = dict.__subclasses__()",
    "a = (lambda: 1)()",
    "a = [print][0]('x')",
    "a = print('x')",
    "a = [1]\na[0].b = 2",
    "a = 3\na()",
    "a = b'bytes'",
    "a = 1j",
    "a = ...",
    "a, *b = [1, 2]",
    "a = [1] @ [2]",
    "a = 'x'.encode()",
    "a = (1).bit_length()",
    "async def f():\n    await x",
    "global a",
    "yield 1",
    "match 1:\n    case 1:\n        pass",
]


@pytest.mark.parametrize("text", PROGRAMS_ONLY)
def test_what_only_a_program_has_is_refused(text):
    with pytest.raises(NotDataError):
        evaluated(text)


LARGE = [
    "a = 10 ** 10 ** 10",
    "a = 2 ** 10**6",
    "a = 9 ** 9 ** 9",
    "a = 1 << 10 ** 9",
    "a = 'x' * 10 ** 9",
    "a = [0] * 10 ** 9",
    "a = 10 ** 9 * (0,)",
    "a = [[[0] * 1000] * 1000] * 1000",
    "a = list(range(10 ** 9))",
    "a = len(range(10 ** 18))",
    "a = sum(range(10 ** 12))",
    "a = max(range(10 ** 12))",
    "a = 'x' in range(10 ** 12)",
    "a = sorted(range(10 ** 9))",
    "a = [*range(10 ** 9)]",
    "a = [i for i in range(10 ** 9)]",
    "a = [0 for i in range(9999) for j in range(9999)]",
    "a = {i: i for i in range(10 ** 9)}",
    "for i in range(10 ** 5):\n    for j in range(10 ** 5):\n        pass",
    "a = [1]\nfor i in range(99):\n    a += a",
    "a = 'ab'\nfor i in range(99):\n    a = a + a",
    "a = 3\nfor i in range(99):\n    a = a * a",
    "a = []\nfor i in range(99):\n    a = [a, a]\nb = a == a.copy()",
    "a = []\nfor i in range(99):\n    a = [a, a]\nb = str(a)",
    "a = ()\nfor i in range(99):\n    a = (a, a)\nb = {a: 1}",
    "a = []\na.append(a)\nb = a == a",
    "a = [[]]\na[0] = a\nb = f'{a}'",
    "a = f'{1:>1000000000}'",
    "a = '{:>1000000000}'.format(1)",
    "a = '%1000000000d' % 1",
    "a = '%*d' % (1000000000, 1)",
    "a = '%.1000000000f' % 1",
    "a = 'x'.zfill(10 ** 9)",
    "a = ('a' * 10 ** 5).replace('a', 'b' * 10 ** 5)",
    "a = ('a' * 10 ** 5).join(['a' * 10 ** 5] * 10 ** 3)",
    "a = ('{}' * 1000).format(*['x' * 10 ** 6] * 1000)",
    "a = round(10, -10 ** 9)",
    "a = int('1' * 4000)",
    "a = " + "-" * 500 + "1",
    "a = " + "[" * 150 + "]" * 150,
    "a = [" + "1," * 5 + "][0]" + "[0]" * 300,
    "a = {" + "x" * 5 + ".y" * 300 + "}",
    "a = [0 " + "for i in [1] " * 300 + "]",
    "a = (-8) ** 0.5",
    "a = 1 / 0",
    "a = 1e308 ** 2",
]


@pytest.mark.parametrize("text", LARGE, ids=lambda text: text[:40])
def test_what_would_not_end_or_fill_the_memory_is_refused(text):
    with pytest.raises((MistakeError, NotDataError, ArithmeticError, ValueError)):
        evaluated(text)


@pytest.mark.parametrize("character", "-~[({")
def test_deep_nesting_does_not_end_the_interpreter(character):
    text = f"a = {character * 100_000}1"
    with pytest.raises((MistakeError, SyntaxError)):
        evaluated(text)


def test_a_long_sum_is_not_deep():
    assert evaluated("a = " + " + ".join(["1"] * 500))["a"] == 500


def test_keys_of_a_base_are_its_attributes():
    base = Keyed(model=Keyed(neck=Keyed(type="FPN", items=3)))
    evaluator = Evaluator({"_base_": base}, Budget(), Keyed)
    text = (
        "a = _base_.model.neck.type\nm = _base_.model\n"
        "m.neck.out = 5\nm.neck.out += 1\ndel m.neck.type"
    )
    evaluator.run(parse_python(text).body)
    assert evaluator.names["a"] == "FPN"
    assert base == {"model": {"neck": {"items": 3, "out": 6}}}
    for text in ("a = _base_.model.nek", "_base_.__class__ = 1", "a = _base_.model.__dict__"):
        with pytest.raises((MistakeError, NotDataError)):
            evaluator.run(parse_python(text).body)
    with pytest.raises(MistakeError, match="Did you mean 'neck'"):
        evaluator.run(parse_python("a = _base_.model.nek").body)


def test_the_line_is_known():
    evaluator = Evaluator({}, Budget())
    with pytest.raises(NotDataError, match=r"open\(\.\.\.\) calls"):
        evaluator.run(parse_python("a = 1\nb = dict(\n    c=2,\n    d=open('x'))\n").body)
    assert evaluator.line == 4


def test_a_name_that_is_not_assigned_gets_the_nearest():
    with pytest.raises(MistakeError, match=r"'data_rot' is not defined\. Did you mean 'data_root'"):
        evaluated("data_root = 'x'\na = data_rot\n")
