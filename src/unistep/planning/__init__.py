"""Planning: what a training takes before it is run, from shapes and from a few small steps."""

from unistep.planning.result import Network as Network
from unistep.planning.result import Plan as Plan
from unistep.planning.result import Stage as Stage
from unistep.planning.result import Steps as Steps
from unistep.planning.result import Switch as Switch
from unistep.planning.table import print_plan as print_plan
