"""Parse a command, call the rooms below, print what they found. Each file is one command.

At its top a command imports only the standard library and its neighbours, so that its help is
there at once; its body imports what it needs.
"""

import os

# Set before torch is imported, which reads it then. Threads that spin while they wait take the
# processor from whoever else computes: beside one busy process an iteration took 5.9 s so, and
# 0.74 s with threads that sleep; on an idle machine 0.47 and 0.48.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
