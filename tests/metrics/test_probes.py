"""Probes read what is there, linear ones what is linear, and nothing where there is nothing."""

import numpy as np
import pytest

from jgen.metrics import probes

NUM = 2_000


def _halves(features, label, **keywords):
    return probes.probe_accuracy(features[:NUM], label[:NUM], features[NUM:], label[NUM:], **keywords)


def test_each_probe_reads_what_it_can():
    generator = np.random.default_rng(0)
    label, noise = generator.integers(2, size=2 * NUM), generator.standard_normal((2 * NUM, 2))
    assert abs(_halves(noise, label) - 0.5) < 0.05
    assert abs(_halves(noise, label, hidden_sizes=(16,)) - 0.5) < 0.05
    shifted = noise + 3 * label[:, None]
    assert _halves(shifted, label) > 0.95
    # A class that sets the spread alone is invisible to a linear probe.
    spread = noise * (1 + 4 * label[:, None])
    assert abs(_halves(spread, label) - 0.5) < 0.08
    assert _halves(spread, label, hidden_sizes=(16,)) > 0.7


def test_chance_is_the_commonest_training_label():
    assert probes.chance([1, 1, 2], [1, 2, 2, 2]) == 0.25


def test_rows_without_labels_are_refused():
    with pytest.raises(ValueError, match="`test_features` must have a label for each row"):
        probes.probe_accuracy(np.zeros((3, 1)), [0, 1, 0], np.zeros((3, 1)), [0, 1])
    with pytest.raises(ValueError, match="`features` must have 2 axes"):
        probes.probe_accuracy(np.zeros(3), [0, 1, 0], np.zeros((3, 1)), [0, 1, 0])
