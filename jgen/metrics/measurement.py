"""A number that says what it is: its unit, its kind, its split and its protocol."""

import dataclasses

from jgen._checks import one_of

KINDS = ("exact", "bound", "estimate", "none")
"""exact: the quantity itself; bound: of a log-likelihood; estimate: AIS and the like; none: no likelihood."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One reported number.

    Attributes:
        value: the number.
        unit: "nats", "bits/dim", "nats/char", ….
        kind: one of `KINDS`; numbers of different kinds never stand in one column.
        split: "train", "valid", "test", or "-" for a number that needs no data.
        protocol: data set, binarization or dequantization, number of samples or temperatures.
    """

    value: float
    unit: str
    kind: str
    split: str
    protocol: str

    def __post_init__(self) -> None:
        one_of("kind", self.kind, KINDS)
