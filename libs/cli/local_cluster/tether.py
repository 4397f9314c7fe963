"""Runs a command that must not outlive the process that started it: `python tether.py PARENT_PID COMMAND...`.

It asks the kernel (Linux, PR_SET_PDEATHSIG) for SIGTERM when the parent is gone, then becomes the command;
the request survives exec. Doing it here and not in `preexec_fn` keeps Python code out of the moment between
fork and exec, where a lock that some other thread of the parent held (gRPC has many) would never be released.
Standard library only, and started with -I -S, so that it costs about 15 ms.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent and turn into the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the request was made
        sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - our own command line, no shell


if __name__ == "__main__":
    main()
