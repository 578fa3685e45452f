"""A process that ends with the one that started it, which may be killed and tell nobody."""

import ctypes
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_it(number: int) -> None:
    """Have Linux send this process a signal when its parent ends; elsewhere do nothing.

    A parent of several threads may be reported more than once, and one that has ended already
    is not.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
