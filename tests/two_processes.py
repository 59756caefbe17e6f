"""Trains a small VAE in one process, or as one of two over loopback; prints its losses."""

import pathlib
import socket
import sys
import time

import jax
import numpy as np
import optax


def _address(rank: int, directory: pathlib.Path) -> str:
    """A free port that process 0 finds and process 1 reads."""
    path = directory / "port"
    if rank == 0:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        path.with_suffix(".part").write_text(str(port))
        path.with_suffix(".part").replace(path)
    while not path.exists():
        time.sleep(0.05)
    return f"127.0.0.1:{path.read_text()}"


def main() -> None:
    if sys.argv[1] == "2":
        rank, directory = int(sys.argv[2]), pathlib.Path(sys.argv[3])
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(_address(rank, directory), num_processes=2, process_id=rank)

    from jgen.data import Dataset, in_memory
    from jgen.latent import vae
    from jgen.math import likelihoods
    from jgen.train import Experiment, Observer, train

    class Printer(Observer):
        def log(self, split: str, step: int, metrics: dict[str, float]) -> None:
            print("loss", metrics["loss"] if split == "train" else metrics["negative_elbo"], flush=True)

    rows = np.random.default_rng(0).integers(0, 2, (96, 6)).astype(np.float32)
    splits = {"train": {"x": rows}, "valid": {"x": rows[:32]}, "test": {"x": rows[:32]}}
    networks = vae.dense((6,), likelihoods.Bernoulli(), 2, hidden_sizes=(16,))
    model = vae.model(networks, optax.adam(1e-2))
    data = in_memory(Dataset("coins", splits, levels=2), 32, 0)
    workdir = pathlib.Path(sys.argv[3]) / "run" if sys.argv[1] == "2" else None
    train(Experiment(model, data, 10, log_every=2, eval_every=5), seed=0, workdir=workdir, observer=Printer())


if __name__ == "__main__":
    main()
