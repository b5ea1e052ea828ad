"""Export: a generator for other libraries, with all it takes to sample it, proven in a fresh process."""

from unistep.export.student import Student as Student
from unistep.export.write import TARGETS as TARGETS
from unistep.export.write import Exported as Exported
from unistep.export.write import write_export as write_export
