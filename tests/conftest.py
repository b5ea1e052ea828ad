"""Ctrl-C means the same wherever the tests are started from."""

import signal

# A shell has what it starts in the background ignore SIGINT, and Python leaves it at that; the tests of Ctrl-C need
# Python's own handler.
signal.signal(signal.SIGINT, signal.default_int_handler)
