"""The verbs as Python functions, the same names as on the command line."""

from unistep.api.certifying import certify as certify
from unistep.api.comparing import compare as compare
from unistep.api.converting import convert as convert
from unistep.api.distilling import distill as distill
from unistep.api.evaluating import evaluate as evaluate
from unistep.api.exporting import export_generator as export_generator
from unistep.api.pairing import make_pairs as make_pairs
from unistep.api.planning import plan as plan
from unistep.api.runs import open_run as open_run
from unistep.api.sampling import sample as sample
from unistep.api.teaching import teach as teach
from unistep.recipes.load import load_recipe as load_recipe
from unistep.teachers.checkpoint import load_generator as load_generator
