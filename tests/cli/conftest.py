"""Lets the tests of the command line import the recipes they share."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
