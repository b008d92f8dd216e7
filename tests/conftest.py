"""What holds for all tests."""

from __future__ import annotations

import signal

from hypothesis import settings

# How long a case takes says nothing on a machine that does something else as well.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

# Programs that tests interrupt are to listen. Where tests are run in the background, or by nohup,
# they would inherit that these signals are ignored, and rightly so.
for _number, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)
