"""What ends at once: a run that is asked again."""

import subprocess
import sys

PROGRAM = """
import os, signal, sys, time
from swin_dense.openmmlab.engine import ends
ends.ECHO = 0.1
with ends.listening() as hook:
    for number in (signal.SIGUSR1, signal.SIGTERM):
        os.kill(os.getpid(), number)  # the same request
    print(signal.Signals(hook.asked).name, flush=True)
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
print("went on")
"""


def test_a_later_signal_ends_at_once():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-15, "SIGUSR1\n")
    assert done.stderr.count("the run saves after this iteration and ends") == 1
