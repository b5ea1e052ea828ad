"""Images to learn from: readers that trust no file, and the order in which a training sees them."""

from unistep.data.config import DataConfig as DataConfig
from unistep.data.dataset import ImageDataset as ImageDataset
from unistep.data.load import load_images as load_images
from unistep.data.order import epoch_order as epoch_order
from unistep.data.order import rows_between as rows_between
from unistep.data.order import rows_for_step as rows_for_step
