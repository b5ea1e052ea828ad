"""Methods: each one file, readable against its paper."""

from unistep.methods.base import Batch as Batch
from unistep.methods.base import LossOutput as LossOutput
from unistep.methods.base import Method as Method
from unistep.methods.base import Phase as Phase
from unistep.methods.dmd import DMD as DMD
from unistep.methods.dmd import DMDConfig as DMDConfig
from unistep.methods.fit import Fit as Fit
from unistep.methods.teach import LabelDropout as LabelDropout
from unistep.methods.teach import Teach as Teach
from unistep.methods.teach import TeachConfig as TeachConfig
