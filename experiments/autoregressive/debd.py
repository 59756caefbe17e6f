"""Binary tables of the density estimation literature (nltcs, plants, mushrooms, dna): what was reached on them.

Test NLL in nats. The NADE papers' values are from memory but for those that agree with a public index of their tables,
and their dna is split 1400 / 600, not 1600 / 400 as the file used here: hence "about", and the protocol.
"""

from typing import Any

NAMES = ("nltcs", "plants", "mushrooms", "dna")
_ID_SPN = "about, from memory: ID-SPN, Rooshenas & Lowd, 2014"
_DEBD, _NADE_SPLIT = "the same split", "another split of the training data, 1400 / 600; the same test data"
_OTHERS: dict[str, tuple[float, str, str]] = {"nltcs": (6.02, _ID_SPN, _DEBD), "plants": (12.54, _ID_SPN, _DEBD)}
_OWN: dict[str, dict[str, tuple[float, str, str]]] = {
    "made": {
        "mushrooms": (9.68, "about, from memory: MADE, 2015 (9.69 with several masks)", _DEBD),
        "dna": (79.66, "about, from memory: MADE, 2015, several masks (83.63 with one)", _NADE_SPLIT),
    },
    "nade": {
        "mushrooms": (9.81, "about, from memory: NADE, 2011", _DEBD),
        "dna": (84.81, "about, from memory: NADE, 2011", _NADE_SPLIT),
    },
    "order_agnostic_nade": {
        "mushrooms": (9.68, "a public index of Uria et al., 2014, 16 orders", _DEBD),
        "dna": (82.31, "a public index of Uria et al., 2014, 16 orders", _NADE_SPLIT),
    },
}


def references(model: str) -> dict[str, dict[str, dict[str, Any]]]:
    """{preset: {"nll": reference}} of `model` ("made", "nade", "order_agnostic_nade"), or of the best known other."""
    rows = {**_OTHERS, **_OWN[model]}
    return {name: {"nll": dict(zip(("value", "source", "protocol"), rows[name], strict=True))} for name in NAMES}
