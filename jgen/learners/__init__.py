"""Ways to learn, which are ways to build `Model.update`."""

from jgen.learners.alternating import AlternatingState, Player, alternating
from jgen.learners.average import AverageState, average
from jgen.learners.bagging import BaggingState, bagging
from jgen.learners.contrastive import ContrastiveState, contrastive
from jgen.learners.counting import CountingState, counting
from jgen.learners.em import EMState, em
from jgen.learners.ensemble import EnsembleState, ensemble
from jgen.learners.gradient import GradientState, gradient

__all__ = [
    "AlternatingState",
    "AverageState",
    "BaggingState",
    "ContrastiveState",
    "CountingState",
    "EMState",
    "EnsembleState",
    "GradientState",
    "Player",
    "alternating",
    "average",
    "bagging",
    "contrastive",
    "counting",
    "em",
    "ensemble",
    "gradient",
]
