"""L11: semi-supervised VAE, M2 and M1+M2, with few labels.

    python -m experiments.latent.semi_supervised                         # 8×8 digits, 100 of 1,200 labels, M2
    python -m experiments.latent.semi_supervised digits_stack            # the same by M1+M2
    python -m experiments.latent.semi_supervised mnist_100 --data DIR    # 100 labels, M1+M2; mnist_100_m2 for M2
    python -m experiments.latent.semi_supervised mnist_1000 --data DIR   # 1,000 labels

Labels are drawn by the seed, equally many of each class. Within a run no label of validation or test data stops or
selects anything: the last parameters are reported. The settings for digits (α, latent size, dropout) were chosen among
eight by validation accuracy with seed 0, whose test accuracy was seen then; seeds 1 and 2 came after it.

Measured on two busy CPU cores, test accuracy with 100 labels, beside 1-nearest-neighbour and logistic regression on the
same labels: digits (54 s) 95.7 % (95.0, 91.0) with seed 0, 97.0 (88.7, 90.3) with 1, 91.7 (92.3, 90.0) with 2;
mnist_100 with --num-steps 6000 --batch-size 90 --labelled-batch-size 10 (220 s, about ten passes) 82.6 % (71.2, 75.9)
with seed 0, a demonstration: the paper's number takes 3,000 passes.

Paper: Kingma, Rezende, Mohamed and Welling, "Semi-Supervised Learning with Deep Generative Models", 2014.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.evaluation import averages
from experiments.latent import few_labels, pixels, style_content
from experiments.runner import main
from experiments.system import System
from jgen import Model
from jgen._types import Batch, Key
from jgen.data import load
from jgen.data.pipeline import Data, Dataset
from jgen.latent import conditional_vae, representation, semi_supervised, semi_supervised_stack, vae
from jgen.math import likelihoods
from jgen.metrics import probes
from jgen.metrics.measurement import Measurement
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    data: str = "digits"
    """Any source of labelled images."""
    num_labels: int = 100
    """Training labels that are kept, equally many of each class."""
    stacked: bool = False
    """M1+M2: M2 learns from the codes of a VAE."""
    likelihood: str = "discretized_logistic"
    """One of `experiments.latent.pixels`."""
    first_latent_size: int = 50
    """Dimensions of M1's codes."""
    latent_size: int = 5
    hidden_size: int = 256
    num_layers: int = 1
    dropout_rate: float = 0.1
    classifier_dropout_rate: float = 0.5
    alpha: float = 5.0
    """Weight of log q(y|x): each labelled example weighs alpha·N/num_labels. The paper has 0.1."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    labelled_batch_size: int = 20
    batch_size: int = 80
    """Unlabelled examples in a batch."""
    num_steps: int = 3_000
    eval_every: int = 500


_MNIST = Config(
    data="tfds:mnist",
    stacked=True,
    likelihood="dynamic_bernoulli",
    latent_size=50,
    hidden_size=500,
    dropout_rate=0.0,
    batch_size=180,
    num_steps=20_000,
    eval_every=2_000,
)
PRESETS = {
    "digits": Config(),
    "smoke": Config(num_steps=2, eval_every=2, hidden_size=16, stacked=True, first_latent_size=4),
    "digits_stack": Config(stacked=True, first_latent_size=16),
    "mnist_100": _MNIST,
    "mnist_1000": dataclasses.replace(_MNIST, num_labels=1_000, labelled_batch_size=100, batch_size=100),
    "mnist_100_m2": dataclasses.replace(_MNIST, stacked=False),
}


class Uses(NamedTuple):
    """What is asked of either model.

    Attributes:
        model: the model.
        class_log_prob: (params, stats, x) -> (batch, classes).
        style: (params, stats, x, label) -> z.
        grid: (params, stats, z) -> (classes, styles, *shape).
        sample: (key, params, stats, label) -> x.
        codes: (params, stats, x) -> M1's codes; None for M2.
    """

    model: Model[Any]
    class_log_prob: Callable[..., Any]
    style: Callable[..., Any]
    grid: Callable[..., Any]
    sample: Callable[..., Any]
    codes: Callable[..., Any] | None


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    dataset = load(config.data, seed=seed)
    if "label" not in dataset.splits["train"]:
        raise ValueError(f"`data` must be a source with labels, such as digits, got {config.data!r}.")
    likelihood, transform, levels = pixels.likelihood(config.likelihood, dataset, "label")
    chosen = few_labels.rows(dataset.splits["train"]["label"], config.num_labels, seed)
    labelled, unlabelled = few_labels.split(dataset, chosen)
    sizes = (config.labelled_batch_size, config.batch_size)
    data = few_labels.mixed(labelled, unlabelled, sizes, seed, transform)
    uses = (_stack if config.stacked else _single)(config, dataset, likelihood)
    measure = functools.partial(_measure, config, uses, data, dataset, labelled)
    draw = functools.partial(_draw, uses, data, dataset, levels)
    return Experiment(uses.model, data, config.num_steps, measure, draw, eval_every=config.eval_every)


def _learning(config: Config, dataset: Dataset) -> dict[str, Any]:
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.num_steps, 0.01)
    share = config.num_labels / dataset.size("train")
    optimizer = optax.adamw(schedule, weight_decay=config.weight_decay)
    return {"optimizer": optimizer, "alpha": config.alpha, "labelled_share": share}


def _parts(config: Config, dataset: Dataset, shape: Any, likelihood: Any) -> dict[str, Any]:
    """M2's networks and classifier, for x of `shape`."""
    num_classes, sizes = int(np.max(dataset.splits["train"]["label"])) + 1, (config.hidden_size,) * config.num_layers
    layers = {"hidden_sizes": sizes, "dropout_rate": config.dropout_rate}
    networks = vae.dense(shape, likelihood, config.latent_size, num_classes=num_classes, **layers)
    classifier = semi_supervised.dense(num_classes, hidden_sizes=sizes, dropout_rate=config.classifier_dropout_rate)
    return {"networks": networks, "classifier": classifier}


def _single(config: Config, dataset: Dataset, likelihood: Any) -> Uses:
    parts = _parts(config, dataset, dataset.shape, likelihood)
    networks = parts["networks"]
    return Uses(
        semi_supervised.model(**parts, **_learning(config, dataset)),
        functools.partial(semi_supervised.class_log_prob, **parts),
        lambda params, stats, x, label: representation.code(params, stats, x, networks=networks, label=label),
        functools.partial(conditional_vae.style_content, networks=networks),
        lambda key, params, stats, label: vae.sample(key, params, stats, len(label), networks=networks, label=label),
        None,
    )


def _stack(config: Config, dataset: Dataset, likelihood: Any) -> Uses:
    sizes = (config.hidden_size,) * 2
    first = vae.dense(dataset.shape, likelihood, config.first_latent_size, hidden_sizes=sizes)
    parts = _parts(config, dataset, (config.first_latent_size,), likelihoods.Gaussian())
    stack = semi_supervised_stack.Stack(first, parts["networks"], parts["classifier"])
    num_classes = stack.second.num_classes or 0

    def grid(params: Any, stats: Any, z: Any) -> Any:
        label = jnp.repeat(jnp.arange(num_classes), len(z))
        means = semi_supervised_stack.decode(params, stats, jnp.tile(z, (num_classes, 1)), label, stack=stack)
        return jnp.reshape(means, (num_classes, len(z), *means.shape[1:]))

    return Uses(
        semi_supervised_stack.model(stack, **_learning(config, dataset)),
        functools.partial(semi_supervised_stack.class_log_prob, stack=stack),
        functools.partial(semi_supervised_stack.style, stack=stack),
        grid,
        functools.partial(semi_supervised_stack.sample, stack=stack),
        functools.partial(semi_supervised_stack.code, stack=stack),
    )


def _measure(
    config: Config, uses: Uses, data: Data, dataset: Dataset, labelled: Dataset, key: Key, state: Any
) -> dict[str, Measurement]:
    test, num_classes = dataset.splits["test"], int(np.max(dataset.splits["train"]["label"])) + 1

    def per_example(key: Key, batch: Batch) -> dict[str, Any]:
        bound = uses.model.log_bound(key, state, batch) if uses.model.log_bound else jnp.zeros(())
        log_class = uses.class_log_prob(state.params, state.stats, batch["x"])
        right = (jnp.argmax(log_class, axis=1) == batch["label"]) * 1.0
        own = {f"class_{c}": right * (batch["label"] == c) for c in range(num_classes)}
        return {"negative_bound": -bound, "accuracy": right, **own}

    found = averages(key, data, "test", per_example)
    labels = f"{config.num_labels} training labels"
    protocol = f"{dataset.name}, {config.likelihood}, {labels}"
    measured = {"negative_bound": Measurement(found.pop("negative_bound"), "nats", "bound", "test", protocol)}
    shares = {"accuracy": found.pop("accuracy")}
    shares |= {f"accuracy_{n}": v / np.mean(np.asarray(test["label"]) == int(n[6:])) for n, v in found.items()}
    shares |= {f"floor_{n}": v for n, v in few_labels.floors(labelled, test["x"], test["label"]).items()}
    if uses.codes is not None:
        transform = pixels.likelihood(config.likelihood, dataset, "label")[1]
        shares["first_layer_logistic"] = _on_codes(uses.codes, labelled, transform, data, dataset, state)
    said = f"{dataset.name}, {labels}, none of validation data"
    return measured | {n: Measurement(float(v), "share", "none", "test", said) for n, v in shares.items()}


def _on_codes(codes: Any, labelled: Dataset, transform: Any, data: Data, dataset: Dataset, state: Any) -> float:
    """Accuracy of logistic regression on M1's codes, learned from the labelled examples: M1 alone."""
    from threadpoolctl import threadpool_limits

    code = jax.jit(functools.partial(codes, state.params, state.stats))
    test = np.concatenate([np.asarray(code(batch["x"]))[:num] for batch, num in data.batches("test")])
    batch = transform(jax.random.key(0), {name: jnp.asarray(x) for name, x in labelled.splits["train"].items()})
    sets = (np.asarray(code(batch["x"])), np.asarray(batch["label"]), test, dataset.splits["test"]["label"])
    with threadpool_limits(1):
        return probes.probe_accuracy(*sets)


def _draw(uses: Uses, data: Data, dataset: Dataset, levels: int, key: Key, state: Any, directory: pathlib.Path) -> None:
    whole, num = next(data.batches("test"))
    x = style_content.chosen(whole, num)["x"]
    label = jnp.argmax(uses.class_log_prob(state.params, state.stats, x), axis=1)
    means = uses.grid(state.params, state.stats, uses.style(state.params, state.stats, x, label))
    rows = style_content.names(dataset, len(means))
    style_content.draw_grid(directory / "style_content.png", x, means, rows, levels)
    sample = functools.partial(uses.sample, key, state.params, state.stats)
    style_content.draw_samples(directory / "samples.png", sample, rows, levels)


SYSTEM = System(
    id="L11",
    module="latent.semi_supervised",
    title="Semi-supervised VAE (M2, M1+M2)",
    kind="bound",
    config=Config,
    presets=PRESETS,
    build=build,
    references={
        "mnist_100": {"accuracy": {"value": 0.9667, "source": "Kingma et al., M1+M2", "protocol": "± 0.0014"}},
        "mnist_1000": {"accuracy": {"value": 0.976, "source": "Kingma et al., M1+M2", "protocol": "as quoted"}},
        "mnist_100_m2": {"accuracy": {"value": 0.8803, "source": "Kingma et al., M2", "protocol": "± 0.0171"}},
    },
)

if __name__ == "__main__":
    main(SYSTEM)
