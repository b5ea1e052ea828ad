"""The verbs as Python functions, the same names as on the command line."""

from unistep.comparison.compare import compare as compare
from unistep.planning.plan import plan as plan
from unistep.recipes.load import load_recipe as load_recipe
from unistep.run.certify import certify as certify
from unistep.run.convert import convert as convert
from unistep.run.distill import distill as distill
from unistep.run.evaluate import evaluate as evaluate
from unistep.run.export import export_generator as export_generator
from unistep.run.folder import open_run as open_run
from unistep.run.pairs import make_pairs as make_pairs
from unistep.run.sample import sample as sample
from unistep.run.teach import teach as teach
from unistep.teachers.checkpoint import load_generator as load_generator
