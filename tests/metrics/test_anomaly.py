"""The AUROC against scikit-learn and against its definition over all pairs."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jgen.metrics import anomaly


@pytest.mark.parametrize("levels", [2, 5, 10_000])
def test_agrees_with_scikit_learn_and_with_all_pairs_ties_included(levels):
    generator = np.random.default_rng(levels)
    known, foreign = generator.integers(levels, size=300), generator.integers(levels, size=170) + levels // 4
    found = anomaly.auroc(known, foreign)
    labels = np.repeat([0, 1], [300, 170])
    assert found == pytest.approx(roc_auc_score(labels, np.concatenate([known, foreign])), abs=1e-12)
    pairs = foreign[None] - known[:, None]
    assert found == pytest.approx(np.mean((pairs > 0) + 0.5 * (pairs == 0)), abs=1e-12)


def test_extremes():
    assert anomaly.auroc([0.0, 1.0], [2.0, np.inf]) == 1.0
    assert anomaly.auroc([2.0], [-np.inf, 1.0, 1.0]) == 0.0
    assert anomaly.auroc(np.zeros(7), np.zeros(3)) == 0.5
    assert anomaly.auroc([1.0], [1.0 + 1e-12]) == 1.0  # not rounded to float32


@pytest.mark.parametrize(
    ("known", "foreign", "message"),
    [
        ([], [1.0], r"`len\(scores_in\)` must be at least 1, got 0"),
        ([1.0], [[1.0]], r"`scores_out` must have 1 axes \(n,\), got shape \(1, 1\)"),
        ([1.0, np.nan], [1.0], "`scores_in` must be numbers, got 1 NaN"),
    ],
)
def test_bad_arguments(known, foreign, message):
    with pytest.raises(ValueError, match=message):
        anomaly.auroc(known, foreign)
