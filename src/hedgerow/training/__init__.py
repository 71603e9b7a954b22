"""Training and evaluation of models on the histories of users."""

from hedgerow.training.histories import Histories, read_histories
from hedgerow.training.splits import Questions, Split, leave_one_out, split_by_time

__all__ = ["Histories", "Questions", "Split", "leave_one_out", "read_histories", "split_by_time"]
