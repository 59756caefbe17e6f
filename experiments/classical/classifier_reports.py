"""What is measured and drawn of classifiers: networks beside generative ones, under noise, and on what is foreign."""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import pictures
from jgen import Model
from jgen._types import Key
from jgen.classical import classifier
from jgen.data.pipeline import Dataset, Transform
from jgen.metrics.anomaly import auroc
from jgen.metrics.measurement import Measurement

GAUSSIANS = ("naive", "linear", "quadratic")
NOISES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A network, and the images that it and the generative classifiers learn from.

    Attributes:
        dataset: images in levels with labels (−1 unknown in train); a split "foreign" of what no classifier knows.
        model: the network's, with `log_prob` = log p(label|x).
        keep: the transform of test data, which the network is given.
        floor: added to the variances of Gaussian classifiers.
        other: images of the same kind that no classifier knows, or None.
    """

    dataset: Dataset
    model: Model[Any]
    keep: Transform
    floor: float
    other: Dataset | None = None

    @property
    def highest(self) -> int:
        """The highest level, which is 1 in [0, 1]."""
        return (self.dataset.levels or 2) - 1

    @property
    def num_classes(self) -> int:
        """How many classes the test images have."""
        return int(self.dataset.splits["test"]["label"].max()) + 1

    def test(self) -> tuple[np.ndarray, np.ndarray]:
        """(images in [0, 1], labels)."""
        split = self.dataset.splits["test"]
        return np.asarray(split["x"] / np.float32(self.highest)), np.asarray(split["label"])

    def class_probs(self, state: Any, x: Any) -> np.ndarray:
        """The network's p(y|x), (num, classes), of images in [0, 1]."""
        log_prob = self.model.log_prob
        assert log_prob is not None
        raw = {"x": jnp.asarray(x) * self.highest, "label": jnp.zeros(len(x), jnp.int32)}
        batch = self.keep(jax.random.key(0), raw)  # which draws nothing

        def one(label: Any) -> Any:
            return log_prob(state, {**batch, "label": jnp.full(len(x), label)})

        return np.exp(np.asarray(jax.vmap(one)(jnp.arange(self.num_classes)))).T

    def counted(self, kind: str) -> Any:
        """The parameters of a generative classifier of the training images that have a label."""
        train = self.dataset.splits["train"]
        seen = train["label"] >= 0
        x = train["x"][seen].reshape(int(seen.sum()), -1)
        x = x if kind == "categorical" else x / np.float32(self.highest)
        batch = {"x": jnp.asarray(x), "label": jnp.asarray(train["label"][seen])}
        model = classifier.model(self.num_classes, kind, levels=self.highest + 1, smoothing=0.1, floor=self.floor)
        key = jax.random.key(0)  # counting draws nothing
        return model.update(key, model.init(key, batch), batch)[0].params

    def foreign(self) -> dict[str, np.ndarray]:
        """Images in [0, 1] that the classifiers should not know."""
        x, _ = self.test()
        found = {"negatives": 1 - x, "turned": np.rot90(x, axes=(1, 2))}
        if self.other is not None:
            whole = np.concatenate([np.asarray(split["x"]) for split in self.other.splits.values()])
            found[self.other.name.split(":")[0]] = whole / np.float32(self.highest)
        if "foreign" in self.dataset.splits:
            found["unseen_classes"] = self.dataset.splits["foreign"]["x"] / np.float32(self.highest)
        return found


def anomaly(params: Any, x: Any) -> np.ndarray:
    """−log p(x) of images in [0, 1]."""
    return -np.asarray(classifier.log_evidence(params, _rows(x)))


def measure(subject: Subject, key: Key, state: Any) -> dict[str, Measurement]:
    """Accuracies, exact likelihoods, and how well foreign images are told by p(x) and by the network's p(y|x)."""
    del key
    x, label = subject.test()
    dataset = subject.dataset
    labelled = int(np.sum(dataset.splits["train"]["label"] >= 0))
    protocol = f"{dataset.name}, {labelled} of {dataset.size('train')} training images labelled"
    share = functools.partial(Measurement, unit="share", kind="none", split="test", protocol=protocol)
    nats = functools.partial(Measurement, unit="nats", kind="exact", split="test")
    probs = subject.class_probs(state, x)
    own = -np.log(np.maximum(probs[np.arange(len(x)), label], 1e-30)).mean()
    levels = f"{protocol}, mass of {subject.highest + 1} levels, naive Bayes"
    evidence = anomaly_of_levels(subject)
    found = {
        "network_class_nll": nats(float(own), protocol=f"{protocol}, p(y|x)"),
        "categorical_nll": nats(float(evidence.mean()), protocol=levels),
        "network_accuracy": share(float(np.mean(probs.argmax(axis=1) == label))),
    }
    for kind in (*GAUSSIANS, "categorical"):
        joint = classifier.joint_log_prob(subject.counted(kind), _input(subject, kind))
        found[f"{kind}_accuracy"] = share(float(np.mean(np.asarray(jnp.argmax(joint, axis=1)) == label)))
    params = subject.counted("quadratic")
    for name, foreign in subject.foreign().items():
        other = subject.class_probs(state, foreign)
        found[f"auroc_{name}_by_p_of_x"] = share(auroc(anomaly(params, x), anomaly(params, foreign)))
        found[f"auroc_{name}_by_p_of_y"] = share(auroc(-probs.max(axis=1), -other.max(axis=1)))
    return found


def anomaly_of_levels(subject: Subject) -> np.ndarray:
    """−log p(x) of the test images as levels, under naive Bayes."""
    return -np.asarray(classifier.log_evidence(subject.counted("categorical"), _input(subject, "categorical")))


def draw(subject: Subject, change: Transform, key: Key, state: Any, directory: pathlib.Path) -> None:
    """samples.png: samples, augmented images, likely and unlikely ones; noise.png: what noise does."""
    test, shape, params = subject.dataset.splits["test"], subject.dataset.shape, subject.counted("quadratic")
    x, _ = subject.test()
    drawn, _ = jax.jit(classifier.sample, static_argnums=2)(key, params, 64)
    sheet = {name: jnp.asarray(test[name][:64]) for name in ("x", "label")}
    changed = np.asarray(change(key, sheet)["x"])
    low, high = changed.min(), changed.max()
    order = np.argsort(anomaly(params, x))
    named = {
        "samples of the Gaussians": np.asarray(drawn).reshape(-1, *shape),
        "augmented": (changed - low) / (high - low),
        "most likely test images": x[order[:64]],
        "least likely": x[order[::-1][:64]],
    }
    pictures.panels(directory / "samples.png", named)
    curves = {name: (NOISES, values) for name, values in under_noise(subject, state).items()}
    pictures.lines(directory / "noise.png", curves, "standard deviation of the noise, pixels in [0, 1]")


def under_noise(subject: Subject, state: Any) -> dict[str, list[float]]:
    """Means over test images with Gaussian noise of each of `NOISES`."""
    x, label = subject.test()
    params, noise = subject.counted("quadratic"), np.random.default_rng(0).standard_normal(x.shape, np.float32)
    curves: dict[str, list[float]] = {}
    for size in NOISES:
        noised = x + size * noise
        probs, own = subject.class_probs(state, noised), np.exp(classifier.class_log_prob(params, _rows(noised)))
        values = {
            "network: largest p(y|x)": probs.max(axis=1).mean(),
            "network: accuracy": np.mean(probs.argmax(axis=1) == label),
            "Gaussians: largest p(y|x)": own.max(axis=1).mean(),
            "Gaussians: accuracy": np.mean(own.argmax(axis=1) == label),
            "AUROC of −log p(x)": auroc(anomaly(params, x), anomaly(params, noised)),
        }
        for name, value in values.items():
            curves.setdefault(name, []).append(float(value))
    return curves


def _rows(x: Any) -> Any:
    return jnp.asarray(np.asarray(x, np.float32).reshape(len(x), -1))


def _input(subject: Subject, kind: str) -> Any:
    """The test images as a generative classifier takes them."""
    x, _ = subject.test()
    return jnp.round(_rows(x) * subject.highest).astype(jnp.int32) if kind == "categorical" else _rows(x)
