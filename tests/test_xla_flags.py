"""Flags for XLA: those that it does not know are left out, of which one would end the process."""

import xla_flags


def test_unknown_flags_are_left_out():
    flags = {"--xla_no_such_flag": "true", "--xla_backend_optimization_level": "0"}
    assert xla_flags.known(flags) == "--xla_backend_optimization_level=0"
