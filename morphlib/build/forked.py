"""The life of a process that was forked to work for its parent, from its first step to its end."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable


def live(life: Callable[[], None]) -> None:
    """Do `life`, and end the process: with status 0 also if it was told to end or its parent is
    gone, with 1 after an exception that nobody expected, which is told on standard error.

    Never returns, so that nothing of what the parent had begun is done twice.
    """
    status = 1
    try:
        life()
        status = 0
    except (SystemExit, KeyboardInterrupt, BrokenPipeError, ConnectionResetError):
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(status)


def leave_once(signum: int, frame: object) -> None:
    """A signal handler: leave by SystemExit, and hear no other SIGTERM."""
    # Once is enough: what clears up must not be interrupted in its turn.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + signum)
