"""Pickles as inert data: what a file says is written down as plain records, and nothing in it is ever called."""

from unistep.io.pickles.read import Allowed as Allowed
from unistep.io.pickles.read import read_pickle as read_pickle
from unistep.io.pickles.values import Call as Call
from unistep.io.pickles.values import Defect as Defect
from unistep.io.pickles.values import Name as Name
