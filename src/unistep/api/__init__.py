"""The verbs as Python functions, the same names as on the command line."""

from unistep.api.runs import open_run as open_run
from unistep.recipes.load import load_recipe as load_recipe
from unistep.teachers.checkpoint import load_generator as load_generator
