"""Linen modules without a loss."""
