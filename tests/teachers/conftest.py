"""Lets the tests of teachers import the writers of EDM's record layout and of hostile pickles."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
