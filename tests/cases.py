"""Every model and every sampler, built tiny: one line each. The contract suites run over these lists."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import targets

from jgen import Model, Sampler
from jgen.adversarial import dcgan, gan
from jgen.autoregressive import (
    any_order,
    causal_conv,
    conv_nade,
    fixed_order,
    frames,
    fvsbn,
    gated_pixel_cnn,
    image_transformer,
    linear,
    made,
    markov,
    nade,
    ngram,
    order_agnostic_nade,
    pixel_cnn,
    pixel_cnn_pp,
    pixel_rnn,
    raster,
    rnade,
    rnn,
    seq2seq,
    tcn,
    transformer,
    wavenet,
    window,
)
from jgen.classical import (
    bayes_net,
    classifier,
    coin,
    histogram,
    ica,
    latent_class,
    map_regression,
    mixture,
    pca,
    tabular,
)
from jgen.diffusion import ddpm, schedules
from jgen.diffusion.denoiser import Denoiser
from jgen.energy import boltzmann, dbm, dbn, ebm, gaussian_rbm, graphs, gsn, jem, noise_contrastive, rbm, score_matching
from jgen.energy.stack import Layer
from jgen.flows import real_nvp
from jgen.latent import (
    autoencoder,
    beta_vae,
    conditional_vae,
    corruptions,
    denoising,
    hierarchical,
    iaf_vae,
    iwae,
    priors,
    score_function,
    semi_supervised,
    semi_supervised_stack,
    stcn,
    stcn_network,
    vae,
    vq_prior,
    vq_vae,
    vrnn,
    vrnn_network,
)
from jgen.latent import networks as parts
from jgen.learners import average, bagging, ensemble
from jgen.math import framewise, likelihoods, quadrature
from jgen.math.strokes import StrokeMixture
from jgen.nets.activations import Trunk
from jgen.nets.mlp import MLP
from jgen.nets.scalar import SquaredError, Tilted
from jgen.nets.temporal import TemporalConv
from jgen.nets.tied import TiedLayers
from jgen.nets.time_mlp import TimeMLP
from jgen.nets.unet import UNet
from jgen.samplers import (
    annealed_langevin,
    gibbs,
    hmc,
    langevin,
    mala,
    markov_chain,
    metropolis,
    nuts,
    sgld,
    tempering,
    transforms,
)

ADAM = optax.adam(1e-2)
BATCH = 32


@dataclasses.dataclass(frozen=True)
class ModelCase:
    """How to build a model tiny, and what is known of it.

    Attributes:
        name: unique.
        build: () -> Model.
        batch: () -> the batch of `BATCH` examples that it eats.
        space: () -> a batch with every point of its (small, discrete) space: Σ exp log_prob over it must be 1, and
            samples must follow it.
        bounds: (low, high) of a 1-D or 2-D real space over which exp log_prob must integrate to 1.
        exact: (state, batch) -> (batch,), the exact log p, where only a bound is in the contract.
    """

    name: str
    build: Callable[[], Model[Any]]
    batch: Callable[[], dict[str, Any]]
    space: Callable[[], dict[str, Any]] | None = None
    bounds: tuple[float, float] | None = None
    exact: Callable[[Any, Any], Any] | None = None


@dataclasses.dataclass(frozen=True)
class SamplerCase:
    """A sampler with a target that can be drawn from exactly.

    Attributes:
        name: unique.
        build: (log_density) -> Sampler for one chain; `log_density` is the target's, or a counting wrapper of it.
        log_density: (position) -> scalar, up to a constant.
        draw: (key, num) -> (num, ...) exact draws from the law that the sampler must keep (for unadjusted samplers
            their own biased stationary law).
        statistics: (positions (num, ...)) -> (num, k), functions whose means must be kept.
        reversible: the kernel satisfies detailed balance (pair exchange is tested).
        support: () -> (states, ...) every state of a small discrete space, else None.
    """

    name: str
    build: Callable[[Any], Sampler[Any]]
    log_density: Callable[[Any], Any]
    draw: Callable[[Any, int], Any]
    statistics: Callable[[Any], Any]
    reversible: bool = True
    support: Callable[[], Any] | None = None


def binary(num_dims: int, rate: float = 0.3) -> Callable[[], dict[str, Any]]:
    """Bernoulli rows."""
    return lambda: {"x": jax.random.bernoulli(jax.random.key(0), rate, (BATCH, num_dims)).astype(jnp.float32)}


def real(*shape: int) -> Callable[[], dict[str, Any]]:
    """Gaussian rows with mean 1 and standard deviation 1/2."""
    return lambda: {"x": jax.random.normal(jax.random.key(0), (BATCH, *shape)) * 0.5 + 1.0}


def unit(*shape: int) -> Callable[[], dict[str, Any]]:
    """Uniform on [0, 1]."""
    return lambda: {"x": jax.random.uniform(jax.random.key(0), (BATCH, *shape))}


def levels(*shape: int, size: int) -> Callable[[], dict[str, Any]]:
    """Uniform whole numbers in 0..size-1."""
    return lambda: {"x": jax.random.randint(jax.random.key(0), (BATCH, *shape), 0, size)}


def tokens(length: int, size: int) -> Callable[[], dict[str, Any]]:
    """Uniform tokens."""
    return lambda: {"tokens": jax.random.randint(jax.random.key(0), (BATCH, length), 0, size)}


def stream(length: int, size: int) -> Callable[[], dict[str, Any]]:
    """Uniform tokens that go on where the batch before ended, in half of the rows."""
    return lambda: {**tokens(length, size)(), "previous": jnp.arange(BATCH) % 2 * size}


def every(num_dims: int, levels: int = 2, name: str = "x", dtype: Any = jnp.float32) -> Callable[[], dict[str, Any]]:
    """All levels^num_dims points."""
    rows = np.array(list(itertools.product(range(levels), repeat=num_dims)))
    return lambda: {name: jnp.asarray(rows, dtype)}


def pixels(*shape: int, size: int = 2) -> Callable[[], dict[str, Any]]:
    """All images of `shape` (height, width, channels)."""
    dtype = jnp.float32 if size == 2 else jnp.int32
    return lambda: {"x": every(int(np.prod(shape)), size, dtype=dtype)()["x"].reshape(-1, *shape)}


def labelled(batch: Callable[[], dict[str, Any]], num_classes: int) -> Callable[[], dict[str, Any]]:
    """The examples of `batch` with labels 0, 1, ..., 0, 1, ..."""

    def add() -> dict[str, Any]:
        found = batch()
        return {**found, "label": jnp.arange(len(next(iter(found.values())))) % num_classes}

    return add


def each_class(space: Callable[[], dict[str, Any]], num_classes: int) -> Callable[[], dict[str, Any]]:
    """Every point of `space` with every label."""

    def add() -> dict[str, Any]:
        found = {name: jnp.concatenate([x] * num_classes) for name, x in space().items()}
        size = len(next(iter(found.values()))) // num_classes
        return {**found, "label": jnp.repeat(jnp.arange(num_classes), size)}

    return add


def regression(num_dims: int, *, classes: bool = False) -> Callable[[], dict[str, Any]]:
    """Gaussian rows x, and y: their sum, or whether it is above its mean."""

    def add() -> dict[str, Any]:
        x = real(num_dims)()["x"]
        y = jnp.sum(x, axis=1)
        return {"x": x, "y": (y > num_dims).astype(jnp.float32) if classes else y}

    return add


def pairs(source: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """Sources, and uniform targets of 3 tokens out of 3."""
    return lambda: {"source": next(iter(source().values())), "target": tokens(3, 3)()["tokens"]}


def every_target() -> dict[str, Any]:
    """One source, and all targets of length 3 out of 3 tokens: ended by token 0, and padded with it, or unfinished."""
    rows = np.asarray(every(3, 3, "target", jnp.int32)()["target"])
    ended = np.cumsum(rows == 0, axis=1) > 0
    rows = np.unique(np.where(ended, 0, rows), axis=0)
    return {"source": jnp.tile(jnp.array([[1, 2, 0]]), (len(rows), 1)), "target": jnp.asarray(rows)}


def ended_frames() -> dict[str, Any]:
    """Two frames of two bits, the second one padding in every third row."""
    x = binary(4)()["x"].reshape(BATCH, 2, 2)
    return {"x": x, "mask": jnp.ones((BATCH, 2)).at[::3, 1].set(0.0)}


def every_frame() -> dict[str, Any]:
    """All pairs of frames of two bits."""
    return {"x": every(4)()["x"].reshape(-1, 2, 2)}


def _vae(likelihood: Any, latent_size: int = 2, **keywords: Any) -> Model[Any]:
    return vae.model(vae.dense((4,), likelihood, latent_size, hidden_sizes=(16,)), ADAM, **keywords)


def _vae_exact(state: Any, batch: Any) -> Any:
    """log ∫ p(x|z) p(z) dz over a one-dimensional z by the trapezoid rule."""
    networks = vae.dense((4,), likelihoods.Bernoulli(), 1, hidden_sizes=(16,))
    z, step = jnp.linspace(-8.0, 8.0, 2001, retstep=True)
    mean = vae.decode(state.params, state.stats, z[:, None], networks=networks)
    x = batch["x"][:, None]
    log_joint = jnp.sum(x * jnp.log(mean)[None] + (1 - x) * jnp.log1p(-mean)[None], axis=-1)
    return jax.nn.logsumexp(log_joint + jax.scipy.stats.norm.logpdf(z)[None], axis=1) + jnp.log(step)


def _conditional() -> vae.Networks:
    return vae.dense((4,), likelihoods.Bernoulli(), 1, hidden_sizes=(16,), num_classes=2)


def _each_class_exact(state: Any, x: Any) -> Any:
    """log p(x, y) of both y, (batch, 2), as `_vae_exact`."""
    z, step = jnp.linspace(-8.0, 8.0, 2001, retstep=True)
    found = []
    for y in range(2):
        label = jnp.full(len(z), y)
        mean = vae.decode(state.params, state.stats, z[:, None], networks=_conditional(), label=label)
        log_joint = x @ jnp.log(mean).T + (1 - x) @ jnp.log1p(-mean).T + jax.scipy.stats.norm.logpdf(z)[None]
        found.append(jax.nn.logsumexp(log_joint, axis=1) + jnp.log(step / 2))
    return jnp.stack(found, axis=1)


def _conditional_exact(state: Any, batch: Any) -> Any:
    return jnp.take_along_axis(_each_class_exact(state, batch["x"]), batch["label"][:, None], axis=1)[:, 0]


def _stack() -> semi_supervised_stack.Stack:
    first = vae.dense((4,), likelihoods.Bernoulli(), 1, hidden_sizes=(8,))
    second = vae.dense((1,), likelihoods.Gaussian(), 1, hidden_sizes=(8,), num_classes=2)
    return semi_supervised_stack.Stack(first, second, semi_supervised.dense(2, hidden_sizes=(8,)))


def _stack_exact(state: Any, batch: Any) -> Any:
    """log ∫ p(x|z₁) Σ_y p(y) ∫ p(z₁|y, z₂) p(z₂) dz₂ dz₁ by the trapezoid rule."""
    (first, second), stack = (state.params[name] for name in ("first", "second")), _stack()
    z, step = jnp.linspace(-8.0, 8.0, 401, retstep=True)
    log_law = []
    for y in range(2):
        label = jnp.full(len(z), y)
        raw = parts.run_decoder(second, state.stats["second"], z[:, None], stack.second, label=label)[0]
        each = jax.vmap(lambda one, raw=raw: likelihoods.Gaussian().log_prob(raw, jnp.full((len(raw), 1), one)))(z)
        log_law.append(jax.nn.logsumexp(each + jax.scipy.stats.norm.logpdf(z)[None], axis=1) + jnp.log(step / 2))
    mean = vae.decode(first, state.stats["first"], z[:, None], networks=stack.first)
    log_joint = batch["x"] @ jnp.log(mean).T + (1 - batch["x"]) @ jnp.log1p(-mean).T
    return jax.nn.logsumexp(log_joint + jnp.logaddexp(*log_law)[None], axis=1) + jnp.log(step)


def some_labelled() -> dict[str, Any]:
    """Bernoulli rows with two classes, of which every third is not known."""
    batch = labelled(binary(4), 2)()
    return {**batch, "label": jnp.where(jnp.arange(BATCH) % 3 == 0, -1, batch["label"])}


def _restoration(corruption: corruptions.Corruption, outputs: int) -> Model[Any]:
    return denoising.model(denoising.Restorer(outputs, corruption.scale, 4, 1), corruption, ADAM)


def _vq_networks() -> vq_vae.Networks:
    return vq_vae.dense((4,), likelihoods.Bernoulli(), 2, num_vectors=2, hidden_sizes=(8,))


def _vq_vae(learning: str = "average") -> Model[Any]:
    return vq_vae.model(_vq_networks(), vq_vae.Quantizer(3, learning, cool_down=1), ADAM)


def _vq_exact(state: Any, batch: Any) -> Any:
    """log Σ_k p(k) p(x|e_k) over all pairs of codes, each drawn by its frequency."""
    k = every(2, 3, dtype=jnp.int32)()["x"]
    mean = vq_vae.from_codes(state.params, state.stats, k, networks=_vq_networks())
    x = batch["x"][:, None]
    log_likelihood = jnp.sum(x * jnp.log(mean)[None] + (1 - x) * jnp.log1p(-mean)[None], axis=-1)
    return jax.nn.logsumexp(log_likelihood + vq_vae.log_frequency_prior(state.stats, k)[None], axis=1)


def _vq_prior(*, joint: bool) -> Model[Any]:
    prior = raster.model(image_transformer.network((1, 2, 1), 3, num_layers=1, num_heads=1, width=4), ADAM)
    first = _vq_vae() if joint else _vq_vae().init(jax.random.key(1), binary(4)())
    return vq_prior.model(_vq_networks(), first, prior)


def _tcn() -> tcn.Network:
    return tcn.Network(likelihoods.Bernoulli(), TemporalConv(3, 1, 2), (4,))


def _stcn(likelihood: Any = None, latent_sizes: tuple[int, ...] = (1, 1), **keywords: Any) -> stcn.Network:
    own = likelihood or likelihoods.Bernoulli()
    return stcn.Network(own, TemporalConv(3, 1, 2), latent_sizes, (4,), (4,), **keywords)


def _stcn_exact(state: Any, batch: Any) -> Any:
    """Σ_t log ∫ p(x_t|z_t) p(z_t|x_<t) dz_t over the noise of two latents by the trapezoid rule."""
    network, nodes, (x, mask) = _stcn(), quadrature.box(-6.0, 6.0, 41, 2), framewise.examples(batch, _tcn().likelihood)
    before, _ = stcn_network.states(network, state.params, x)

    def log_joint(point: Any) -> Any:
        noise = tuple(jnp.full((*x.shape[:2], 1), value) for value in point)
        z = stcn_network.descend(network, state.params, noise, before).z
        raw = stcn_network.decode(network, state.params, z, before)
        return framewise.log_prob(network.likelihood, raw, x) + jnp.sum(jax.scipy.stats.norm.logpdf(point))

    each = jax.lax.map(log_joint, nodes.points, batch_size=256) + nodes.log_weights[:, None, None]
    return framewise.total(jax.nn.logsumexp(each, axis=0), mask)


def labelled_moves() -> dict[str, Any]:
    """Two pen moves and one of three labels."""
    pen = jax.random.randint(jax.random.key(1), (BATCH, 2, 1), 0, 3)
    return {"x": jnp.concatenate([real(2, 2)()["x"], pen], axis=-1), "label": jnp.arange(BATCH) % 3}


def _vrnn(latent_size: int = 1, *, smoothing: bool = False) -> vrnn.Network:
    sizes = {"hidden_size": 4, "num_units": 3, "cell": "gru", "smoothing": smoothing}
    return vrnn.dense(likelihoods.Bernoulli(), (2,), latent_size, **sizes)


def _vrnn_exact(network: vrnn.Network) -> Callable[[Any, Any], Any]:
    """log ∫∫ p(x|z) p(z) dz over the noise of the latents of two frames by the trapezoid rule."""

    def exact(state: Any, batch: Any) -> Any:
        (x, mask), params = framewise.examples(batch, network.likelihood), state.params
        features, c = vrnn_network.embed(network, params, x), jnp.zeros((len(x), 0))

        def log_joint(point: Any) -> Any:
            memory, total = vrnn.start(params, len(x), network=network), jnp.sum(jax.scipy.stats.norm.logpdf(point))
            for t in range(2):
                h, p = memory.state[0], vrnn_network.prior(network, params, memory.state[0], memory.g, c)
                g = vrnn_network.g_of(network, params, p.mean + jnp.exp(p.log_std) * point[t])
                raw = vrnn_network.decode(network, params, jnp.concatenate([g, h], axis=-1)[:, None])
                total = total + framewise.log_prob(network.likelihood, raw, x[:, t : t + 1])[:, 0] * mask[:, t]
                memory = vrnn_network.advance(network, params, memory, features[:, t], c, g)
            return total

        nodes = quadrature.box(-6.0, 6.0, 41, 2)
        each = jax.lax.map(log_joint, nodes.points, batch_size=256) + nodes.log_weights[:, None]
        return jax.nn.logsumexp(each, axis=0)

    return exact


def _hierarchy(inference: str, prior: priors.Prior = priors.STANDARD_NORMAL, **keywords: Any) -> Model[Any]:
    sizes = (2, 1), ((8,), (8,))
    parts = hierarchical.dense((4,), likelihoods.Bernoulli(), *sizes, inference=inference, prior=prior)
    return hierarchical.model(parts, ADAM, **keywords)


def _iaf() -> Model[Any]:
    posterior = iaf_vae.InverseAutoregressive(2, (8,), 3)
    return iaf_vae.model(
        vae.dense((4,), likelihoods.Bernoulli(), 3, posterior=posterior, hidden_sizes=(8,)), ADAM, free_bits=0.05
    )


def _gan(**keywords: Any) -> Model[Any]:
    players = {"generator_optimizer": ADAM, "critic_optimizer": ADAM}
    return gan.model(MLP((8, 2)), MLP((8, 1)), latent_size=3, **players, **keywords)


SPRINKLER = bayes_net.graph({"cloudy": (), "sprinkler": ("cloudy",), "rain": ("cloudy",), "wet": ("sprinkler", "rain")})


def _bit_gibbs(num_dims: int) -> ebm.Kernel:
    return lambda log_density: gibbs.sampler(gibbs.sites(log_density, num_dims, [0.0, 1.0]))


def _bits(key: Any, shape: tuple[int, ...]) -> Any:
    return jax.random.bernoulli(key, 0.5, shape).astype(jnp.float32)


def _chains(kernel: ebm.Kernel, **keywords: Any) -> ebm.Chains:
    settings = {"num": 16, "buffer_size": 64, "num_steps": 2, "restart": _bits, "num_sample_steps": 20, **keywords}
    return ebm.Chains(kernel, **settings)


def _gsn(sizes: tuple[int, ...], levels: int = 2, noise_std: float = 0.0, **keywords: Any) -> Callable[[], Model[Any]]:
    chains = {"num_sample_steps": 20, "num_bound_samples": 40, "num_bound_chains": 4, **keywords}
    return lambda: gsn.model(gsn.Network(TiedLayers(sizes, noise_std), 3, levels), ADAM, **chains)


def _gsn_exact(state: Any, batch: Any) -> Any:
    """log of the law that the chain's transition matrix keeps, by squaring it until all rows are one."""
    matrix = gsn.transition_matrix(state.params, every(3)()["x"], network=gsn.Network(TiedLayers((5,)), 3))
    for _ in range(8):
        matrix = matrix @ matrix
    return jnp.log(matrix[0])[(batch["x"] @ jnp.array([4.0, 2.0, 1.0])).astype(jnp.int32)]


MODELS: list[ModelCase] = [
    ModelCase("markov", lambda: markov.model(3, order=2, length=3), tokens(3, 3), every(3, 3, "tokens", jnp.int32)),
    ModelCase(
        "ngram", lambda: ngram.model(3, order=2, capacity=64, length=3), tokens(3, 3), every(3, 3, "tokens", jnp.int32)
    ),
    ModelCase("linear", lambda: linear.model(1, length=2), real(2), bounds=(-6.0, 8.0)),
    # Widths are multiples of the quadrature's step and no edge lies on one of its points: the sum is exact.
    ModelCase(
        "histogram",
        lambda: histogram.model(histogram.equal_widths(-2.999, 5.001, 8), smoothing=0.5),
        real(1),
        bounds=(-4.0, 6.0),
    ),
    ModelCase(
        "histogram_product",
        lambda: histogram.model([histogram.equal_widths(-2.99, 5.01, 8)] * 2, smoothing=0.5),
        real(2),
        bounds=(-4.0, 6.0),
    ),
    ModelCase(
        "histogram_joint",
        lambda: histogram.model([histogram.equal_widths(-2.99, 5.01, 4)] * 2, joint=True, smoothing=0.5),
        real(2),
        bounds=(-4.0, 6.0),
    ),
    ModelCase("coin", lambda: coin.model(prior=(0.5, 2.0)), binary(3), every(3)),
    ModelCase("map_ridge", lambda: map_regression.model(ADAM, num_examples=BATCH, noise=0.5), regression(3)),
    ModelCase("map_lasso", lambda: map_regression.model(0.1, num_examples=BATCH, prior="laplace"), regression(3)),
    ModelCase(
        "map_logistic",
        lambda: map_regression.model(ADAM, num_examples=BATCH, loss="logistic"),
        regression(3, classes=True),
        lambda: {"x": jnp.ones((2, 3)), "y": jnp.array([0.0, 1.0])},
    ),
    ModelCase(
        "map_perceptron",
        lambda: map_regression.model(ADAM, num_examples=BATCH, loss="perceptron", strength=0.0),
        regression(3, classes=True),
    ),
    ModelCase("bayes_net", lambda: bayes_net.model(SPRINKLER, smoothing=0.5), binary(4), every(4)),
    ModelCase(
        "bayes_net_neural",
        lambda: bayes_net.neural_model(bayes_net.graph({"a": ("b",), "b": (), "c": ("a", "b")}, 3), ADAM),
        levels(3, size=3),
        every(3, 3, dtype=jnp.int32),
    ),
    ModelCase("tabular", lambda: tabular.model((2,) * 4, smoothing=0.1), binary(4), every(4)),
    ModelCase("tabular_categorical", lambda: tabular.model((3,) * 3), levels(3, size=3), every(3, 3, dtype=jnp.int32)),
    ModelCase("mixture_full", lambda: mixture.model(2, floor=1e-2), real(2), bounds=(-6.0, 8.0)),
    ModelCase(
        "mixture_diagonal", lambda: mixture.model(3, covariance="diagonal", floor=1e-2), real(2), bounds=(-6.0, 8.0)
    ),
    ModelCase("pca", lambda: pca.model(1, floor=1e-2), real(2), bounds=(-6.0, 8.0)),
    ModelCase("pca_em", lambda: pca.em_model(1, floor=1e-2), real(2), bounds=(-6.0, 8.0)),
    ModelCase("pca_autoencoder", lambda: pca.autoencoder(2, ADAM), real(3)),
    ModelCase("ica", lambda: ica.model(optax.sgd(0.1)), real(2), bounds=(-9.0, 11.0)),
    ModelCase("ica_newton", lambda: ica.model(optax.sgd(0.5), newton=True), real(2), bounds=(-9.0, 11.0)),
    ModelCase("classifier_naive", lambda: classifier.model(2, "naive"), labelled(real(3), 2)),
    ModelCase("classifier_linear", lambda: classifier.model(2, "linear"), labelled(real(3), 2)),
    ModelCase("classifier_quadratic", lambda: classifier.model(2, "quadratic"), labelled(real(3), 2)),
    ModelCase(
        "classifier_categorical",
        lambda: classifier.model(2, "categorical", levels=3),
        labelled(levels(2, size=3), 2),
        each_class(every(2, 3, dtype=jnp.int32), 2),
    ),
    ModelCase(
        "classifier_network",
        lambda: classifier.network_model(
            Trunk((8,), "randomized_leaky_relu", dropout_rate=0.2),
            (classifier.Classes("label", 2), classifier.Values("x", 3)),
            ADAM,
        ),
        labelled(real(3), 2),
    ),
    ModelCase("latent_class", lambda: latent_class.model(2, levels=3), levels(2, size=3), every(2, 3, dtype=jnp.int32)),
    ModelCase("bagging", lambda: bagging(mixture.model(2, floor=1e-2), 3), real(2), bounds=(-6.0, 8.0)),
    ModelCase(
        "ensemble",
        lambda: ensemble([made.model(ADAM, hidden_sizes=(6,), num_masks=2, mask_seed=i) for i in range(2)]),
        binary(4),
        every(4),
    ),
    ModelCase("made", lambda: made.model(ADAM, hidden_sizes=(8, 6), num_masks=2), binary(4), every(4)),
    ModelCase(
        "made_residual", lambda: made.model(ADAM, hidden_sizes=(8, 8), num_masks=2, residual=True), binary(4), every(4)
    ),
    ModelCase(
        "made_categorical", lambda: made.model(ADAM, hidden_sizes=(8,), levels=3), levels(3, size=3), every(3, 3)
    ),
    ModelCase("fvsbn", lambda: fixed_order.model(fvsbn.network(4, order=1), ADAM), binary(4), every(4)),
    ModelCase("nade", lambda: fixed_order.model(nade.network(4, hidden_size=5, order=1), ADAM), binary(4), every(4)),
    ModelCase(
        "nade_categorical",
        lambda: fixed_order.model(nade.network(3, 3, hidden_size=5, activation="relu"), ADAM),
        levels(3, size=3),
        every(3, 3, dtype=jnp.int32),
    ),
    ModelCase(
        "rnade",
        lambda: fixed_order.model(rnade.network(2, num_components=2, hidden_size=4, order=(1, 0)), ADAM),
        real(2),
        bounds=(-14.0, 16.0),
    ),
    ModelCase(
        "rnade_laplace_averaged",
        lambda: average(fixed_order.model(rnade.network(1, component="laplace", floor=0.1), ADAM), 0.9),
        real(1),
        bounds=(-20.0, 20.0),
    ),
    ModelCase(
        "nade_lbfgs", lambda: fixed_order.model(nade.network(4, hidden_size=3), optax.lbfgs()), binary(4), every(4)
    ),
    ModelCase(
        "order_agnostic_nade",
        lambda: any_order.model(order_agnostic_nade.network((4,), hidden_sizes=(8, 6)), ADAM, num_orders=3),
        binary(4),
        every(4),
    ),
    ModelCase(
        "order_agnostic_nade_categorical",
        lambda: any_order.model(order_agnostic_nade.network((3,), 3, hidden_sizes=(8,)), ADAM, num_draws=2),
        levels(3, size=3),
        every(3, 3),
    ),
    ModelCase(
        "conv_nade",
        lambda: any_order.model(
            conv_nade.network((2, 3, 1), features=3, kernels=(2,), hidden_sizes=(5,)), ADAM, num_orders=2
        ),
        lambda: {"x": binary(6)()["x"].reshape(-1, 2, 3, 1)},
        pixels(2, 3, 1),
    ),
    ModelCase(
        "causal_conv",
        lambda: raster.model(causal_conv.network((2, 2, 1), 3, features=4, num_layers=2, kernel_size=2), ADAM),
        levels(2, 2, 1, size=3),
        pixels(2, 2, 1, size=3),
    ),
    ModelCase(
        "pixel_cnn",
        lambda: raster.model(
            pixel_cnn.network((2, 2, 1), 3, features=4, num_blocks=1, first_size=3, head_features=4, dropout_rate=0.2),
            ADAM,
        ),
        levels(2, 2, 1, size=3),
        pixels(2, 2, 1, size=3),
    ),
    ModelCase(
        "pixel_cnn_colour",
        lambda: raster.model(
            pixel_cnn.network((1, 2, 3), 2, features=6, num_blocks=1, first_size=3, head_features=3), ADAM
        ),
        lambda: {"x": binary(6)()["x"].reshape(-1, 1, 2, 3)},
        pixels(1, 2, 3),
    ),
    ModelCase(
        "gated_pixel_cnn",
        lambda: raster.model(
            gated_pixel_cnn.network(
                (2, 2, 1), 2, num_classes=2, features=4, num_layers=2, first_size=3, head_features=4, dropout_rate=0.2
            ),
            ADAM,
        ),
        labelled(lambda: {"x": binary(4)()["x"].reshape(-1, 2, 2, 1)}, 2),
        each_class(pixels(2, 2, 1), 2),
    ),
    ModelCase(
        "pixel_cnn_pp",
        lambda: raster.model(
            pixel_cnn_pp.network((2, 3, 1), 3, features=3, num_blocks=1, num_components=2, dropout_rate=0.2), ADAM
        ),
        levels(2, 3, 1, size=3),
        pixels(2, 3, 1, size=3),
    ),
    ModelCase(
        "pixel_rnn_row",
        lambda: raster.model(
            pixel_rnn.network((2, 2, 1), 3, "row", features=3, num_layers=1, first_size=3, dropout_rate=0.2), ADAM
        ),
        levels(2, 2, 1, size=3),
        pixels(2, 2, 1, size=3),
    ),
    ModelCase(
        "pixel_rnn_diagonal",
        lambda: raster.model(pixel_rnn.network((2, 2, 1), 2, features=3, num_layers=1, first_size=3), ADAM),
        lambda: {"x": binary(4)()["x"].reshape(-1, 2, 2, 1)},
        pixels(2, 2, 1),
    ),
    ModelCase(
        "rnn_lstm",
        lambda: rnn.model(ADAM, 3, num_units=5, embedding_size=4, length=3, dropout_rate=0.2),
        tokens(3, 3),
        every(3, 3, "tokens", jnp.int32),
    ),
    ModelCase(
        "rnn_gru_carried",
        lambda: rnn.model(ADAM, 3, cell="gru", num_units=5, embedding_size=4, length=3, carried=True),
        stream(3, 3),
    ),
    ModelCase(
        "transformer",
        lambda: transformer.model(transformer.Transformer(3, 3, 2, 2, 4, "sinusoidal", dropout_rate=0.2), ADAM),
        tokens(3, 3),
        every(3, 3, "tokens", jnp.int32),
    ),
    ModelCase(
        "transformer_windows",
        lambda: transformer.model(transformer.Transformer(3, 3, 1, 2, 4), ADAM),
        stream(3, 3),
    ),
    ModelCase(
        "image_transformer",
        lambda: raster.model(
            image_transformer.network((1, 2, 2), 3, num_layers=2, num_heads=2, width=4, dropout_rate=0.2), ADAM
        ),
        levels(1, 2, 2, size=3),
        pixels(1, 2, 2, size=3),
    ),
    ModelCase(
        "image_transformer_classes",
        lambda: raster.model(
            image_transformer.network((2, 2, 1), 2, num_classes=2, num_layers=1, num_heads=1, width=4), ADAM
        ),
        labelled(lambda: {"x": binary(4)()["x"].reshape(-1, 2, 2, 1)}, 2),
        each_class(pixels(2, 2, 1), 2),
    ),
    ModelCase(
        "window",
        lambda: raster.model(window.network((2, 2, 1), 3, window_size=3, hidden_size=5), ADAM),
        levels(2, 2, 1, size=3),
        pixels(2, 2, 1, size=3),
    ),
    ModelCase(
        "wavenet",
        lambda: wavenet.model(wavenet.WaveNet(3, 4, 5, num_layers=2), ADAM, length=4),
        tokens(4, 3),
        every(4, 3, "tokens", jnp.int32),
    ),
    ModelCase(
        "wavenet_classes",
        lambda: wavenet.model(wavenet.WaveNet(3, 4, 5, num_layers=1, num_stacks=2, num_classes=2), ADAM, length=3),
        labelled(tokens(3, 3), 2),
        each_class(every(3, 3, "tokens", jnp.int32), 2),
    ),
    ModelCase(
        "frames_independent",
        lambda: frames.model(frames.Network(2, "independent", "gru", num_units=4), ADAM, length=2, dropout_rate=0.2),
        ended_frames,
        every_frame,
    ),
    ModelCase(
        "frames_nade",
        lambda: frames.model(frames.Network(2, num_units=4, hidden_size=3), ADAM, length=2),
        lambda: {"x": ended_frames()["x"]},
        every_frame,
    ),
    ModelCase(
        "seq2seq",
        lambda: seq2seq.model(seq2seq.text(3, 3, num_units=5, embedding_size=4), ADAM),
        pairs(tokens(3, 3)),
        every_target,
    ),
    ModelCase(
        "seq2seq_captions",
        lambda: seq2seq.model(seq2seq.image(4, 3, cell="lstm", num_units=5, embedding_size=4, features=4), ADAM),
        pairs(levels(4, 4, 1, size=4)),
    ),
    ModelCase(
        "ddpm_averaged",
        lambda: average(
            ddpm.model(Denoiser(TimeMLP(16, 1), schedules.linear(20), variance="forward"), (2,), ADAM), 0.9
        ),
        real(2),
    ),
    ModelCase(
        "ddpm_unet_learned_variance",
        lambda: ddpm.model(
            Denoiser(UNet((4, 8), outputs_per_input=2), schedules.cosine(8), 5, variance="learned"), (4, 4, 1), ADAM
        ),
        lambda: {"x": levels(4, 4, 1, size=5)()["x"].astype(jnp.uint8)},
    ),
    ModelCase(
        "real_nvp",
        lambda: real_nvp.model(real_nvp.table_flow(2, num_layers=2, hidden_sizes=(8,)), optimizer=ADAM),
        real(2),
        bounds=(-8.0, 8.0),
    ),
    ModelCase(
        "real_nvp_image",
        lambda: real_nvp.model(
            real_nvp.image_flow((4, 4, 1), channels=2, num_blocks=0), optimizer=ADAM, levels=5, num_samples=2
        ),
        lambda: {"x": levels(4, 4, 1, size=5)()["x"].astype(jnp.uint8)},
    ),
    ModelCase("gan", lambda: _gan(num_critic_steps=4, instance_noise=optax.linear_schedule(0.5, 0.0, 10)), real(2)),
    ModelCase("gan_minimax", lambda: _gan(loss="minimax", label_smoothing=0.1), real(2)),
    ModelCase(
        "dcgan",
        lambda: dcgan.model((8, 8, 1), latent_size=3, channels=2, generator_optimizer=ADAM, critic_optimizer=ADAM),
        real(8, 8, 1),
    ),
    ModelCase("boltzmann", lambda: boltzmann.model(graphs.complete(4, 2), ADAM, num_chains=16), binary(4), every(4)),
    ModelCase(
        "boltzmann_exact", lambda: boltzmann.model(graphs.layered((4, 3)), ADAM, exact=True), binary(4), every(4)
    ),
    ModelCase("rbm", lambda: rbm.model(4, 3, ADAM, num_chains=16, weight_decay=1e-3), binary(4), every(4)),
    ModelCase(
        "gaussian_rbm", lambda: gaussian_rbm.model(2, 3, ADAM, num_chains=16, num_steps=2), real(2), bounds=(-4.0, 6.0)
    ),
    ModelCase(
        "dbn",
        lambda: dbn.model(
            4, [Layer(3, ADAM, 0), Layer(4, ADAM, 1)], tuning=ADAM, start_tied=True, num_chains=16, num_bound_samples=3
        ),
        binary(4),
        every(4),
        exact=lambda state, batch: dbn.log_prob(state.params, batch["x"]),
    ),
    ModelCase(
        "dbm",
        lambda: dbm.model(4, [Layer(3, ADAM, 1), Layer(2, ADAM, 0)], ADAM, num_chains=16, num_mean_field=3),
        binary(4),
        every(4),
        exact=lambda state, batch: dbm.log_prob(state.params, batch["x"]),
    ),
    ModelCase("rbm_cd", lambda: rbm.model(4, 3, ADAM, num_steps=2, persistent=False), binary(4), every(4)),
    ModelCase(
        "score_matching_averaged",
        lambda: average(
            score_matching.model(
                score_matching.Network(TimeMLP(8, 1), (2.0, 0.5)), (2,), ADAM, step_size=0.02, steps_per_level=3
            ),
            0.9,
        ),
        real(2),
    ),
    ModelCase(
        "score_matching_sliced_energy",
        lambda: score_matching.model(
            score_matching.Network(SquaredError(TimeMLP(8, 0)), is_energy=True), (2,), ADAM, objective="sliced_reduced"
        ),
        real(2),
    ),
    ModelCase(
        "ebm",
        lambda: ebm.model(
            Tilted(MLP((8, 1), jnp.tanh)),
            (2,),
            ADAM,
            chains=_chains(ebm.langevin_kernel(0.05), num_sample_steps=3),
            energy_weight=1e-3,
            nodes=quadrature.box(-6.0, 8.0, 141, 2),
        ),
        real(2),
        bounds=(-6.0, 8.0),
    ),
    ModelCase(
        "ebm_discrete",
        lambda: ebm.model(
            MLP((8, 1), jnp.tanh), (4,), ADAM, chains=_chains(_bit_gibbs(4)), nodes=quadrature.every((0.0, 1.0), 4)
        ),
        binary(4),
        every(4),
    ),
    ModelCase(
        "jem",
        lambda: jem.model(
            MLP((8, 3), jnp.tanh), (3,), ADAM, chains=_chains(_bit_gibbs(3)), nodes=quadrature.every((0.0, 1.0), 3)
        ),
        labelled(binary(3), 3),
        each_class(every(3), 3),
    ),
    ModelCase(
        "noise_contrastive",
        lambda: noise_contrastive.model(
            Tilted(MLP((8, 1), jnp.tanh)), ADAM, noise=noise_contrastive.gaussian(real(2)()["x"]), num_proposals=20
        ),
        real(2),
    ),
    ModelCase("gsn", _gsn((5,), num_walkback=2), binary(3), exact=_gsn_exact),
    ModelCase("gsn_layers", _gsn((5, 4), 3, 0.5), levels(3, size=3)),
    ModelCase("autoencoder", lambda: autoencoder.model(autoencoder.dense((4,), 2, hidden_sizes=(8,)), ADAM), real(4)),
    ModelCase(
        "autoencoder_overcomplete",
        lambda: autoencoder.model(
            autoencoder.dense((4,), 6, hidden_sizes=(), reconstruction="bernoulli", num_active=2),
            ADAM,
            corruption=corruptions.masking(0.2),
            sparsity=0.1,
        ),
        binary(4),
    ),
    ModelCase(
        "autoencoder_conv_contractive",
        lambda: autoencoder.model(autoencoder.convolutional((4, 4, 1), 2, channels=(4,)), ADAM, contractive=0.1),
        real(4, 4, 1),
    ),
    ModelCase("denoising_inpainting", lambda: _restoration(corruptions.hidden_rectangle(2, 3), 1), unit(4, 4, 1)),
    ModelCase("denoising_super_resolution", lambda: _restoration(corruptions.fewer_pixels(2), 1), unit(4, 4, 1)),
    ModelCase("denoising_colorization", lambda: _restoration(corruptions.grey(), 3), unit(4, 4, 3)),
    ModelCase("denoising", lambda: denoising.model(MLP((8, 4)), corruptions.gaussian(0.3), ADAM), real(4)),
    ModelCase("tcn", lambda: tcn.model(_tcn(), ADAM, length=2), ended_frames, every_frame),
    ModelCase("stcn", lambda: stcn.model(_stcn(), ADAM, length=2), ended_frames, exact=_stcn_exact),
    ModelCase(
        "stcn_iwae_bound",
        lambda: stcn.model(_stcn(), ADAM, length=2, num_bound_samples=4, warm_up_steps=3),
        ended_frames,
        exact=_stcn_exact,
    ),
    ModelCase(
        "stcn_first_layer_and_skip",
        lambda: stcn.model(
            _stcn(likelihoods.Gaussian(), (2, 1), dense=False, skip=True, dropout_rate=0.2), ADAM, length=3, beta=0.5
        ),
        real(3, 2),
    ),
    ModelCase(
        "vrnn",
        lambda: vrnn.model(_vrnn(), ADAM, length=2, warm_up_steps=3),
        ended_frames,
        exact=_vrnn_exact(_vrnn()),
    ),
    ModelCase(
        "vrnn_smoothing",
        lambda: vrnn.model(_vrnn(smoothing=True), ADAM, length=2, num_bound_samples=4, dropout_rate=0.2),
        lambda: {"x": ended_frames()["x"]},
        exact=_vrnn_exact(_vrnn(smoothing=True)),
    ),
    ModelCase(
        "vrnn_without_latents",
        lambda: vrnn.model(_vrnn(0), ADAM, length=2, dropout_rate=0.2),
        ended_frames,
        every_frame,
    ),
    ModelCase(
        "vrnn_style",
        lambda: vrnn.model(
            vrnn.dense(
                StrokeMixture(2, pen_states=3), (3,), 2, hidden_size=4, num_units=3, style_size=1, num_contents=3
            ),
            ADAM,
            length=2,
            beta=0.5,
        ),
        labelled_moves,
    ),
    ModelCase("vae", lambda: _vae(likelihoods.Bernoulli(), 1), binary(4), exact=_vae_exact),
    ModelCase(
        "vae_iwae_bound", lambda: _vae(likelihoods.Bernoulli(), 1, num_bound_samples=8), binary(4), exact=_vae_exact
    ),
    ModelCase(
        "vae_score_function",
        lambda: score_function.model(vae.dense((4,), likelihoods.Bernoulli(), 1, hidden_sizes=(16,)), ADAM),
        binary(4),
        exact=_vae_exact,
    ),
    ModelCase(
        "beta_vae_constrained",
        lambda: beta_vae.model(
            vae.dense((4,), likelihoods.Bernoulli(), 1, hidden_sizes=(16,)), ADAM, max_rate=0.5, multiplier_rate=0.1
        ),
        binary(4),
        exact=_vae_exact,
    ),
    ModelCase(
        "conditional_vae",
        lambda: conditional_vae.model(_conditional(), ADAM),
        labelled(binary(4), 2),
        exact=_conditional_exact,
    ),
    ModelCase(
        "semi_supervised",
        lambda: semi_supervised.model(
            _conditional(), semi_supervised.dense(2, hidden_sizes=(8,)), ADAM, labelled_share=0.1
        ),
        some_labelled,
        exact=lambda state, batch: jax.nn.logsumexp(_each_class_exact(state, batch["x"]), axis=1),
    ),
    ModelCase(
        "semi_supervised_stack",
        lambda: semi_supervised_stack.model(_stack(), ADAM),
        some_labelled,
        exact=_stack_exact,
    ),
    ModelCase(
        "vae_convolutional",
        lambda: vae.model(
            vae.convolutional((4, 4, 1), likelihoods.DiscretizedLogistic(5), 2, channels=(4, 4), num_blocks=1), ADAM
        ),
        levels(4, 4, 1, size=5),
    ),
    ModelCase(
        "iwae_vamp",
        lambda: iwae.model(
            vae.dense((4,), likelihoods.Bernoulli(), 2, prior=priors.Vamp(3), hidden_sizes=(8,)),
            ADAM,
            num_samples=3,
            first_num_samples=2,
            first_steps=1,
        ),
        binary(4),
    ),
    ModelCase(
        "vae_mixture_conditional",
        lambda: vae.model(
            vae.dense((4,), likelihoods.Bernoulli(), 2, prior=priors.Mixture(3), num_classes=3, hidden_sizes=(8,)),
            ADAM,
            warm_up_steps=4,
        ),
        labelled(binary(4), 3),
    ),
    ModelCase("iaf_vae", _iaf, binary(4)),
    ModelCase("hierarchical_ladder", lambda: _hierarchy("ladder", num_samples=2), binary(4)),
    ModelCase("hierarchical_ladder_vamp", lambda: _hierarchy("ladder", priors.Vamp(3)), binary(4)),
    ModelCase("hierarchical_bottom_up", lambda: _hierarchy("bottom_up"), binary(4)),
    ModelCase("vae_categorical", lambda: _vae(likelihoods.Categorical(5)), levels(4, size=5)),
    ModelCase("vae_logistic", lambda: _vae(likelihoods.DiscretizedLogistic(5)), levels(4, size=5)),
    ModelCase("vae_gaussian_averaged", lambda: average(_vae(likelihoods.Gaussian()), 0.9), real(4)),
    ModelCase("vq_vae", _vq_vae, binary(4), exact=_vq_exact),
    ModelCase("vq_vae_gradient", lambda: _vq_vae("gradient"), binary(4), exact=_vq_exact),
    ModelCase("vq_prior", lambda: _vq_prior(joint=False), binary(4)),
    ModelCase("vq_prior_joint", lambda: _vq_prior(joint=True), binary(4)),
]

SAMPLERS: list[SamplerCase] = [
    SamplerCase(
        "metropolis_random_walk",
        lambda log_density: metropolis.sampler(log_density, metropolis.random_walk(1.5)),
        targets.log_exp,
        targets.draw_log_exp,
        targets.moments,
    ),
    SamplerCase(
        "metropolis_multiplicative",
        lambda log_density: metropolis.sampler(log_density, targets.multiply),
        targets.exponential,
        lambda key, num: jax.random.exponential(key, (num,)),
        targets.moments,
    ),
    SamplerCase(
        "metropolis_asymmetric_states",
        lambda log_density: metropolis.sampler(log_density, targets.up_more),
        targets.weights,
        targets.draw_weights,
        targets.one_hot_six,
        support=lambda: jnp.arange(6),
    ),
    SamplerCase(
        "metropolis_independence",
        lambda log_density: metropolis.sampler(
            log_density, metropolis.independence(lambda key: 2 * jax.random.normal(key), lambda x: -(x**2) / 8)
        ),
        lambda x: -0.5 * x**2,
        lambda key, num: jax.random.normal(key, (num,)),
        targets.moments,
    ),
    SamplerCase("metropolis_pytree", targets.pair_walk, targets.pair, targets.draw_pair, targets.pair_statistics),
    SamplerCase(
        "gibbs_random_scan",
        targets.ising_gibbs("random"),
        targets.ising,
        targets.draw_ising,
        targets.ising_statistics,
        support=lambda: targets.SPINS,
    ),
    SamplerCase(
        "gibbs_systematic_scan",
        targets.ising_gibbs("systematic"),
        targets.ising,
        targets.draw_ising,
        targets.ising_statistics,
        reversible=False,
        support=lambda: targets.SPINS,
    ),
    SamplerCase(
        "gibbs_blocks",
        lambda log_density: gibbs.sampler(targets.PAIR_BLOCKS),
        targets.pair,
        targets.draw_pair,
        targets.pair_statistics,
        reversible=False,
    ),
    SamplerCase(
        "langevin",  # keeps its own law: N(0, 1/(1 − 0.8/2))
        lambda log_density: langevin.sampler(log_density, 0.8),
        lambda x: -0.5 * x**2,
        lambda key, num: jax.random.normal(key, (num,)) / jnp.sqrt(0.6),
        targets.moments,
    ),
    SamplerCase(
        "annealed_langevin",  # the last level, at which it stays: Langevin's own law
        lambda log_density: annealed_langevin.sampler(lambda x, sigma: jax.grad(log_density)(x) / sigma**2, [1.0], 0.8),
        lambda x: -0.5 * x**2,
        lambda key, num: jax.random.normal(key, (num,)) / jnp.sqrt(0.6),
        targets.moments,
    ),
    SamplerCase(
        "markov_chain",
        lambda log_density: markov_chain.sampler(targets.REVERSIBLE),
        targets.weights,
        targets.draw_weights,
        targets.one_hot_six,
        support=lambda: jnp.arange(6),
    ),
    SamplerCase(
        "transforms",
        lambda log_density: transforms.sampler(targets.LOG_EXPONENTIAL),
        targets.log_exp,
        targets.draw_log_exp,
        targets.moments,
    ),
    SamplerCase(
        "tempering",
        lambda log_density: tempering.sampler(*targets.tempered_walk(log_density), betas=targets.BETAS),
        lambda x: -0.5 * x**2,
        targets.draw_tempered,
        targets.tempered_moments,
        reversible=False,
    ),
    SamplerCase(
        "tempering_rbm",
        lambda log_density: tempering.sampler(*targets.tempered_machine(), betas=[1.0, 0.5]),
        targets.machines,
        targets.draw_machines,
        targets.machines_statistics,
        reversible=False,
        support=targets.machines_states,
    ),
    SamplerCase(
        "sgld",  # keeps its own law, the sum of all noise so far
        lambda log_density: sgld.sampler(targets.coins_gradient(log_density), targets.COINS_STEP),
        targets.coins_prior,
        targets.draw_coins,
        targets.moments,
        reversible=False,
    ),
    SamplerCase(
        "mala",
        lambda log_density: mala.sampler(log_density, 0.4),
        targets.log_exp,
        targets.draw_log_exp,
        targets.moments,
    ),
    SamplerCase(
        "mala_mass",
        lambda log_density: mala.sampler(log_density, 0.3, inverse_mass={"x": 0.6, "y": 1.5}),
        targets.pair,
        targets.draw_pair,
        targets.pair_statistics,
    ),
    SamplerCase(
        "hmc",
        lambda log_density: hmc.sampler(log_density, 0.7, 3),
        targets.log_exp,
        targets.draw_log_exp,
        targets.moments,
    ),
    SamplerCase(
        "hmc_jitter_mass",
        lambda log_density: hmc.sampler(log_density, 0.4, (2, 6), inverse_mass={"x": 0.6, "y": 1.5}),
        targets.pair,
        targets.draw_pair,
        targets.pair_statistics,
    ),
    SamplerCase(
        "nuts",
        lambda log_density: nuts.sampler(log_density, 0.8, max_depth=3),
        targets.log_exp,
        targets.draw_log_exp,
        targets.moments,
    ),
    SamplerCase(
        "rbm_gibbs",
        lambda log_density: rbm.gibbs(targets.MACHINE),
        targets.machine,
        targets.draw_machine,
        targets.machine_statistics,
        support=targets.machine_states,
    ),
]
