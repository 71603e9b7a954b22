"""Training and evaluation of models on the histories of users."""

from hedgerow.training.histories import Histories, read_histories
from hedgerow.training.options import TrainingOptions
from hedgerow.training.splits import Questions, Split, leave_one_out, split_by_time
from hedgerow.training.train import TrainingReport, train

__all__ = [
    "Histories",
    "Questions",
    "Split",
    "TrainingOptions",
    "TrainingReport",
    "leave_one_out",
    "read_histories",
    "split_by_time",
    "train",
]
