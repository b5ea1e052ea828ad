"""Ctrl-C means the same wherever the tests are started from."""

import os
import signal

# A shell has what it starts in the background ignore SIGINT, and Python leaves it at that; the tests of Ctrl-C need
# Python's own handler.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What tests measure is not kept for later ones; those of the cache give it a folder and a size.
os.environ["UNISTEP_CACHE_GIB"] = "0"
