"""How well a score tells what is foreign from what is known."""

from typing import Any

import numpy as np
import scipy.stats

from jgen._checks import at_least, rank


def auroc(scores_in: Any, scores_out: Any) -> float:
    """The area under the receiver operating characteristic, P(out > in) + ½ P(out = in) over all pairs, exactly.

    It is 1 where every foreign example scores higher than every known one, ½ where scores say nothing. By ranks (Mann
    and Whitney, 1947), ties counted half: n log n, in float64.

    Args:
        scores_in: (n,), of known examples; higher means more foreign, such as an energy or −log p.
        scores_out: (m,), of foreign examples.

    Raises:
        ValueError: a sample is empty, has more than one axis, or holds a NaN.
    """
    known, foreign = np.asarray(scores_in, np.float64), np.asarray(scores_out, np.float64)
    for name, scores in (("scores_in", known), ("scores_out", foreign)):
        rank(name, scores, 1, "(n,)")
        at_least(f"len({name})", len(scores), 1)
        if np.isnan(scores).any():
            raise ValueError(f"`{name}` must be numbers, got {int(np.isnan(scores).sum())} NaN.")
    ranks = scipy.stats.rankdata(np.concatenate([known, foreign]))
    wins = ranks[len(known) :].sum() - len(foreign) * (len(foreign) + 1) / 2
    return float(wins / (len(known) * len(foreign)))
