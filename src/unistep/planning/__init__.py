"""Planning: what a training takes before it is run, from shapes and from a few small steps."""

from unistep.costing.result import Network as Network
from unistep.costing.result import Plan as Plan
from unistep.costing.result import Stage as Stage
from unistep.costing.result import Steps as Steps
from unistep.costing.result import Suggestion as Suggestion
from unistep.planning.table import print_plan as print_plan
