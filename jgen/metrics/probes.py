"""What can be read from a representation: classifiers trained on features, beside chance.

A linear probe misses what is stored in a bent way (Alain and Bengio, "Understanding Intermediate Layers Using Linear
Classifier Probes", 2017), so that "nothing can be read" needs the other one too.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jgen import _checks


def probe_accuracy(
    features: Any, label: Any, test_features: Any, test_label: Any, *, hidden_sizes: Sequence[int] = (), seed: int = 0
) -> float:
    """The share of test labels that a classifier of the features gets right.

    Features are standardized by the training rows. Without hidden layers it is logistic regression, with some a
    network that stops by a tenth of the training rows.

    Args:
        features: (n, d), to train on.
        label: (n,), whole numbers.
        test_features: (m, d).
        test_label: (m,).
        hidden_sizes: widths of hidden layers.
        seed: of the network's weights and batches.

    Raises:
        ValueError: features are no rows, or the rows and labels differ in number.
    """
    for name, rows, answers in (("features", features, label), ("test_features", test_features, test_label)):
        _checks.rank(name, rows, 2, "(num, dim)")
        if len(rows) != len(answers):
            raise ValueError(f"`{name}` must have a label for each row, got {len(rows)} rows and {len(answers)}.")
    from sklearn.linear_model import LogisticRegression  # as in `data.embedded`: other imports need not wait for it
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    network = MLPClassifier(tuple(hidden_sizes), early_stopping=True, max_iter=1_000, random_state=seed)
    probe = make_pipeline(StandardScaler(), network if hidden_sizes else LogisticRegression(max_iter=2_000))
    probe.fit(np.asarray(features, np.float64), np.asarray(label))
    return float(probe.score(np.asarray(test_features, np.float64), np.asarray(test_label)))


def chance(label: Any, test_label: Any) -> float:
    """The share of test labels that are the commonest training label: what is right without any features."""
    values, counts = np.unique(np.asarray(label), return_counts=True)
    return float(np.mean(np.asarray(test_label) == values[np.argmax(counts)]))
