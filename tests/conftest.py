"""What holds for every test: one thread for arithmetic, the same examples in every run."""

import os
import signal

# Before torch is imported, here or in a process that a test starts: several pools of as many
# threads as there are cores are slower than one thread each.
os.environ["OMP_NUM_THREADS"] = "1"

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")

# Tests that were started in the background ignore Ctrl-C, and all processes they start inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)
