"""What files may hold: each limit by its name, which a variable of the environment raises.

A few bytes can ask for all memory or for hours. Whoever reads files asks here before it reads on;
`LIMITS` is the list, docs/limits.md says what each is for. A config has limits of its own,
`config_language/limits.py`, and a page in the browser `web/answers.py`.
"""

from __future__ import annotations

import dataclasses
import os

from swin_dense.errors import InputError

PREFIX = "SWIN_DENSE_MOST_"
LIMITS: dict[str, Limit] = {}  # by variable, in the order in which they were made


@dataclasses.dataclass(frozen=True)
class Limit:
    """Say how much of something a file may hold.

    Args:
        variable: of the environment; its value takes the place of `usual`.
        usual: the limit where the variable is not set.
        what: is counted: "pixels of an image that is decoded as a whole".
    """

    variable: str
    usual: int
    what: str

    def __post_init__(self) -> None:
        LIMITS[self.variable] = self

    @property
    def most(self) -> int:
        """Return the limit as it is now.

        Raises:
            InputError: the variable holds no number above 0.
        """
        given = os.environ.get(self.variable, "")
        if not given:
            return self.usual
        try:
            most = int(float(given))
        except (ValueError, OverflowError):
            most = 0
        if most < 1:
            raise InputError(
                f"{self.variable}={given!r}: a number above 0 is needed, as in {self.usual} or "
                f"1e10. It counts {self.what}."
            )
        return most

    def rule(self, count: int | None = None) -> str:
        """Say what is over the limit and how it is raised, in two sentences.

        Args:
            count: that came; None where counting ended at the limit.
        """
        came = f"{count:,}" if count is not None else "more"
        return (
            f"{came} {self.what}, at most {self.most:,} are read. If you trust the file and have "
            f"the memory, raise the limit: {self.variable}={_above(count or 2 * self.most)}."
        )


def _above(count: int) -> str:
    """Write a round number that is not below `count`, as 2e9."""
    digits = len(str(count)) - 1
    return f"{-(-count // 10**digits)}e{digits}"


def _limit(name: str, usual: int, what: str) -> Limit:
    return Limit(PREFIX + name, usual, what)


# Four bytes a pixel to decode, three for the array and three for its copy in a model's order.
IMAGE_PIXELS = _limit("IMAGE_PIXELS", 100_000_000, "pixels of an image decoded as a whole")
ROW_PIXELS = _limit("ROW_PIXELS", 250_000, "pixels in a row of an image read in bands")
BLOCK_BYTES = _limit("BLOCK_BYTES", 2**29, "bytes of one strip or tile of a TIFF")
OUTLINE_PIXELS = _limit("OUTLINE_PIXELS", 10_000_000, "pixels along the outlines of one mask")
UNPACKED_BYTES = _limit(
    "UNPACKED_BYTES", 2**28, "bytes that the deflated parts of a checkpoint unpack to"
)
RECORD_BYTES = _limit("RECORD_BYTES", 2**27, "bytes that say what a checkpoint's tensors are")
PICKLE_STEPS = _limit("PICKLE_STEPS", 2_000_000, "steps of a pickle")
PICKLE_OBJECTS = _limit(
    "PICKLE_OBJECTS",
    20_000_000,
    "objects in one of a pickle, a shared one counted at each of its places",
)
PICKLE_NESTING = _limit("PICKLE_NESTING", 200, "objects of a pickle within one another")
