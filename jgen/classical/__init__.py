"""Densities, mixtures and linear latent models."""
