"""Judging samples: features, distances to real images, class agreement, points, latency; one pass feeds all metrics."""

from unistep.evaluation.cache import Identity as Identity
from unistep.evaluation.cache import load_features as load_features
from unistep.evaluation.cache import save_features as save_features
from unistep.evaluation.evaluate import Candidate as Candidate
from unistep.evaluation.evaluate import evaluate_models as evaluate_models
from unistep.evaluation.evaluate import evaluate_points as evaluate_points
from unistep.evaluation.extractors.base import ImageJudge as ImageJudge
from unistep.evaluation.extractors.base import Metric as Metric
from unistep.evaluation.extractors.base import Observed as Observed
from unistep.evaluation.extractors.base import Reference as Reference
from unistep.evaluation.extractors.features import Judge as Judge
from unistep.evaluation.extractors.features import load_judge as load_judge
from unistep.evaluation.extractors.features import load_perceptual as load_perceptual
from unistep.evaluation.measure import all_metrics as all_metrics
from unistep.evaluation.measure import figures as figures
from unistep.evaluation.measure import judge_samples as judge_samples
from unistep.evaluation.measure import quick_metrics as quick_metrics
from unistep.evaluation.metrics.points import Modes as Modes
from unistep.evaluation.metrics.points import point_figures as point_figures
from unistep.evaluation.result import Evaluation as Evaluation
from unistep.evaluation.result import Row as Row
from unistep.evaluation.throughput import Timing as Timing
from unistep.evaluation.throughput import measure as measure
