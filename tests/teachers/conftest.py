"""Lets the tests of teachers import the writers of EDM's record layout and of hostile pickles."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "networks")]  # the golden values are those of the networks
