"""What srun says of its processes, in the words that torch reads."""

import os
import subprocess

from swin_dense.errors import InputError

PORTS = (20_000, 10_000)  # the first, and how many: below those that the system gives out


def name_processes() -> None:
    """Set rank, number of processes, and where the first one listens, from srun's variables.

    MASTER_ADDR and MASTER_PORT are kept where they are set. Otherwise they are the job's first
    machine, and a port that follows from the job's number, so that two jobs on a machine differ.

    Raises:
        InputError: the first machine of several is not known.
    """
    given = os.environ
    given["RANK"], given["WORLD_SIZE"] = given["SLURM_PROCID"], given["SLURM_NTASKS"]
    given["LOCAL_RANK"] = given.get("SLURM_LOCALID", "0")
    if "MASTER_ADDR" not in given:
        given["MASTER_ADDR"] = _first_machine()
    job = int(given.get("SLURM_JOB_ID", "0"))
    given.setdefault("MASTER_PORT", str(PORTS[0] + job % PORTS[1]))


def _first_machine() -> str:
    nodes = os.environ.get("SLURM_STEP_NODELIST", os.environ["SLURM_NODELIST"])
    if not set(nodes) & set("[,"):
        return nodes  # one machine
    try:
        asked = ["scontrol", "show", "hostnames", nodes]
        told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
        return told[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise InputError(
            f"`launcher` slurm: scontrol does not tell the first of the machines {nodes} here "
            f"({error}). Set MASTER_ADDR to its name in the batch script."
        ) from error
