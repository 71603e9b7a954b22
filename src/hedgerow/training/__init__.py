"""Training and evaluation of models on the histories of users."""

from hedgerow.training.baselines import content_knn, item_knn, popularity, text_vectors
from hedgerow.training.blending import Blend
from hedgerow.training.evaluate import BlendSpec, evaluate
from hedgerow.training.evaluation import Evaluation, EvaluationRow, evaluate_rankers
from hedgerow.training.evaluation_plot import plot_evaluation
from hedgerow.training.histories import Histories, read_histories
from hedgerow.training.loss import SidLoss
from hedgerow.training.model_ranker import ModelRanker
from hedgerow.training.options import TrainingOptions
from hedgerow.training.outcome import TrainingReport
from hedgerow.training.rankers import Ranked, Ranker, ScoreRanker
from hedgerow.training.splits import Questions, Split, leave_one_out, split_by_time
from hedgerow.training.train import train

__all__ = [
    "Blend",
    "BlendSpec",
    "Evaluation",
    "EvaluationRow",
    "Histories",
    "ModelRanker",
    "Questions",
    "Ranked",
    "Ranker",
    "ScoreRanker",
    "SidLoss",
    "Split",
    "TrainingOptions",
    "TrainingReport",
    "content_knn",
    "evaluate",
    "evaluate_rankers",
    "item_knn",
    "leave_one_out",
    "plot_evaluation",
    "popularity",
    "read_histories",
    "split_by_time",
    "text_vectors",
    "train",
]
