"""Lets the tests import the teacher that is misread in every way."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
