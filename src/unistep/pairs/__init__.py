"""Noise-image pairs: the teacher's ODE solved from seeds, stored so that every row can be made again bit for bit."""

from unistep.pairs.facts import kernel_facts as kernel_facts
from unistep.pairs.facts import row_facts as row_facts
from unistep.pairs.generate import generate_pairs as generate_pairs
from unistep.pairs.store import Pairs as Pairs
from unistep.pairs.store import PairStore as PairStore
from unistep.pairs.store import open_pairs as open_pairs
from unistep.pairs.store import pair_batch as pair_batch
