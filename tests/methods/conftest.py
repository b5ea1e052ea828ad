"""Lets the tests of the methods import their stand-in for the loop's randomness."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
