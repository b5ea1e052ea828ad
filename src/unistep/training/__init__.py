"""Training: one loop for every method, its checkpoints, ranks, averages, records and alarms."""

from unistep.training.batches import BatchSource as BatchSource
from unistep.training.batches import EncodedImages as EncodedImages
from unistep.training.batches import Streams as Streams
from unistep.training.batches import TensorImages as TensorImages
from unistep.training.checkpoint import Checkpoints as Checkpoints
from unistep.training.config import CheckpointConfig as CheckpointConfig
from unistep.training.config import EMAConfig as EMAConfig
from unistep.training.config import OptimConfig as OptimConfig
from unistep.training.config import TrainingConfig as TrainingConfig
from unistep.training.ema import EMA as EMA
from unistep.training.finite import NonFiniteError as NonFiniteError
from unistep.training.health import HealthConfig as HealthConfig
from unistep.training.health import HealthMonitor as HealthMonitor
from unistep.training.health import SampleStatistics as SampleStatistics
from unistep.training.health import sample_statistics as sample_statistics
from unistep.training.hooks import Hooks as Hooks
from unistep.training.hooks import View as View
from unistep.training.loop import TrainResult as TrainResult
from unistep.training.loop import train as train
from unistep.training.prepare import prepare_network as prepare_network
from unistep.training.random import Shard as Shard
from unistep.training.random import StepRandom as StepRandom
