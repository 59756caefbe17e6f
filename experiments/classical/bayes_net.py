"""C6: Bayes nets: learned, asked exactly, and asked by sampling.

    python -m experiments.classical.bayes_net                        # a burglary, an earthquake, an alarm, two calls
    python -m experiments.classical.bayes_net digits                 # pixels given their neighbours and the class
    python -m experiments.classical.bayes_net digits_neural          # small networks in place of tables

The burglary net is the textbook's; it is learned from its own draws, and p(burglary | both call) is asked of the
textbook's tables (exactly 0.2842), and of the learned ones. A digit's net has the class and the binarized pixels, each
given the class and the pixels next to it that come before in reading order; the class of a test image is then a query.

Measured with seed 0, nats per binarized test image with the class summed out, and wrong classes: digits 16.92 and 6.3 %
(30 s), digits_neural 16.30 and 4.7 % (134 s on busy cores). Burglary: 0.2842 by elimination, 0.283 by 65,536 Gibbs
steps, 0.262 by as many weighted draws (3 s).

Pearl, "Probabilistic Reasoning in Intelligent Systems", 1988. Russell and Norvig, "Artificial Intelligence", fig. 14.2.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import pictures
from experiments.runner import main
from experiments.system import System
from jgen import run
from jgen._checks import one_of
from jgen._types import Key
from jgen.classical import bayes_inference, bayes_net
from jgen.data import in_memory, load, transforms
from jgen.data.pipeline import Dataset
from jgen.metrics.measurement import Measurement
from jgen.samplers import gibbs
from jgen.train import Experiment

QUERY, CALLS = "burglary", {"john": 1, "mary": 1}
EXACT = 0.284172
BURGLARY = bayes_net.graph(
    {"burglary": (), "earthquake": (), "alarm": ("burglary", "earthquake"), "john": ("alarm",), "mary": ("alarm",)}
)
_ONES = ((0.001,), (0.002,), (0.001, 0.29, 0.94, 0.95), (0.05, 0.9), (0.01, 0.7))
TEXTBOOK = tuple(jnp.array([[1 - p, p] for p in ones]) for ones in _ONES)
NUMS = tuple(4**k for k in range(3, 9))  # of draws, in the picture of sampled answers
SIZES = {"train": 100_000, "valid": 20_000, "test": 20_000}


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    data: str = "burglary"
    """Draws of the textbook's net, or labelled images."""
    conditionals: str = "tables"
    """tables, or networks."""
    radius: int = 1
    """A pixel's parents are those at most so far away in both directions that come before it."""
    smoothing: float = 0.5
    """Added to every count of a table."""
    hidden_size: int = 32
    """Units of each network."""
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    batch_size: int = 10_000
    num_steps: int = 10
    """Tables count each batch; an epoch is all they need."""


PRESETS = {
    "burglary": Config(),
    "smoke": Config(num_steps=2),
    "digits": Config(data="digits", batch_size=100, num_steps=12),
    "digits_neural": Config(data="digits", conditionals="networks", radius=2, batch_size=100, num_steps=1_000),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    one_of("conditionals", config.conditionals, ("tables", "networks"))
    graph, dataset = (BURGLARY, _burglaries(seed)) if config.data == "burglary" else _pixels(config, seed)
    if config.conditionals == "tables":
        net, model = bayes_net.tables(graph), bayes_net.model(graph, smoothing=config.smoothing)
    else:
        sizes = (config.hidden_size,)
        optimizer = optax.adamw(config.learning_rate, weight_decay=config.weight_decay)
        net, model = bayes_net.neural(graph, sizes), bayes_net.neural_model(graph, optimizer, hidden_sizes=sizes)
    return Experiment(
        model,
        in_memory(dataset, config.batch_size, seed, eval_batch_size=min(config.batch_size, dataset.size("valid"))),
        config.num_steps,
        functools.partial(_measure, config, net, model, dataset),
        functools.partial(_draw, net),
        log_every=max(config.num_steps // 50, 1),
        eval_every=max(config.num_steps // 10, 1),
        select="nll" if config.conditionals == "networks" else None,
    )


def _burglaries(seed: int) -> Dataset:
    net, splits = bayes_net.tables(BURGLARY), {}
    for i, (name, num) in enumerate(SIZES.items()):
        x, _ = bayes_net.sample(net, jax.random.fold_in(jax.random.key(seed), i), TEXTBOOK, num)
        splits[name] = {"x": np.asarray(x)}
    return Dataset("burglary", splits, levels=2, synthetic=True)


def _pixels(config: Config, seed: int) -> tuple[bayes_net.Graph, Dataset]:
    """The graph of the class and the pixels, and rows of both."""
    dataset = load(config.data, seed=seed)
    if dataset.levels is None or len(dataset.shape) != 3 or "label" not in dataset.splits["train"]:
        raise ValueError(f"`--data` must be burglary or images with labels, such as digits, got {dataset.name}.")
    height, width = dataset.shape[:2]
    num_classes = int(np.max(dataset.splits["train"]["label"])) + 1
    parents: dict[str, tuple[str, ...]] = {"class": ()}
    for row, column in np.ndindex(height, width):
        near = [
            (r, c)
            for r in range(max(row - config.radius, 0), row + 1)
            for c in range(max(column - config.radius, 0), min(column + config.radius + 1, width))
            if (r, c) < (row, column)
        ]
        parents[f"{row},{column}"] = ("class", *(f"{r},{c}" for r, c in near))
    levels = {name: num_classes if name == "class" else 2 for name in parents}
    cut, splits = transforms.chain(transforms.binarize(dataset.levels), transforms.flatten), {}
    for name, split in dataset.splits.items():
        bits = cut(jax.random.key(0), {"x": split["x"][..., :1]})["x"]
        splits[name] = {"x": np.concatenate([split["label"][:, None], np.asarray(bits)], axis=1).astype(np.int32)}
    return bayes_net.graph(parents, levels), Dataset(f"{dataset.name}, binarized at half, and its class", splits)


def _measure(config: Config, net: Any, model: Any, dataset: Dataset, key: Key, state: Any) -> dict[str, Measurement]:
    log_prob, x = jax.jit(model.log_prob), jnp.asarray(dataset.splits["test"]["x"])
    how = f"{dataset.name}, {config.conditionals}"
    found = {"nll": Measurement(-float(jnp.mean(log_prob(state, {"x": x}))), "nats", "exact", "test", how)}
    if net.graph == BURGLARY:
        asked = f"p({QUERY} | john, mary)"
        for name, (one, params) in {
            "textbook": (bayes_net.tables(BURGLARY), TEXTBOOK),
            "learned": (net, state.params),
        }.items():
            ask = jax.jit(functools.partial(bayes_inference.by_elimination, one, query=(QUERY,), evidence=CALLS))
            chance = float(ask(params=params).probs[1])
            found[f"chance_{name}"] = Measurement(
                chance, "probability", "exact", "-", f"{asked}, {name} net, elimination"
            )
        for name, values in _sampled(key, NUMS[-1:]).items():
            how = f"{asked}, textbook net, {name}, {NUMS[-1]} draws"
            found[f"chance_{name.lower().replace(' ', '_')}"] = Measurement(
                float(values[0]), "probability", "estimate", "-", how
            )
        return found
    each = [log_prob(state, {"x": x.at[:, 0].set(k)}) for k in range(net.graph.levels[0])]
    wrong = float(jnp.mean(jnp.argmax(jnp.stack(each), axis=0) != x[:, 0]))
    image = -float(jnp.mean(jax.nn.logsumexp(jnp.stack(each), axis=0)))
    found["nll_image"] = Measurement(image, "nats", "exact", "test", f"{how}, the class summed out")
    found["error"] = Measurement(wrong, "share of examples", "none", "test", f"{how}, the class asked for")
    return found


def _sampled(key: Key, nums: Any) -> dict[str, list[float]]:
    """p(burglary | both call) of the textbook's net, from so many draws."""
    net, answers = bayes_net.tables(BURGLARY), {}
    for name, method in {
        "rejection": bayes_inference.rejection,
        "likelihood weighting": bayes_inference.likelihood_weighting,
    }.items():
        answer = jax.jit(
            functools.partial(method, net, params=TEXTBOOK, query=(QUERY,), evidence=CALLS), static_argnames="num"
        )
        answers[name] = [float(answer(key, num=num).probs[1]) for num in nums]
    kernel = gibbs.sampler(bayes_inference.gibbs_blocks(net, TEXTBOOK, CALLS))
    first = jax.jit(lambda key: bayes_net.sample(net, key, TEXTBOOK, 1, evidence=CALLS)[0])
    start = first(key)[0].astype(jnp.int32)
    states = jax.jit(
        lambda start: run(key, kernel, kernel.init(key, start), max(nums), keep=lambda state, info: state.position[0])
    )(start)[1]
    answers["Gibbs"] = [float(jnp.mean(states[:num])) for num in nums]
    return answers


def _draw(net: Any, key: Key, state: Any, directory: pathlib.Path) -> None:
    x, _ = jax.jit(lambda key: bayes_net.sample(net, key, state.params, 64))(key)
    if net.graph != BURGLARY:
        height, width = (int(number) + 1 for number in net.graph.names[-1].split(","))
        pictures.grid(directory / "samples.png", np.asarray(x[:, 1:]).reshape(64, height, width, 1))
        return
    rows = [" ".join(name for name, one in zip(net.graph.names, row, strict=True) if one) or "-" for row in x]
    (directory / "samples.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    named = {name: (NUMS, values) for name, values in _sampled(key, NUMS).items()}
    panels = {"p(burglary | both call)": {**named, "exact": (NUMS, [EXACT] * len(NUMS))}}
    pictures.line_panels(directory / "answers.png", panels, "draws", log_x=True)


SYSTEM = System(
    id="C6",
    module="classical.bayes_net",
    title="Bayes net",
    kind="exact",
    config=Config,
    presets=PRESETS,
    build=build,
    references={
        "burglary": {
            "chance_learned": {"value": 0.284, "source": "Russell and Norvig", "protocol": "the textbook's tables"},
            "chance_textbook": {"value": 0.284, "source": "Russell and Norvig", "protocol": "the textbook's tables"},
        }
    },
)

if __name__ == "__main__":
    main(SYSTEM)
