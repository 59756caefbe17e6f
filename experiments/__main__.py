"""`python -m experiments`: the catalogue; with a command: reports, records, reproductions, the README's table."""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import NoReturn

COMMANDS = {
    "report": "write one report.html about finished runs, and print its tables as Markdown",
    "record": "keep the summary of a finished run in experiments/results",
    "reproduce": "run a recorded run again from its seed, and compare",
    "readme": "write the recorded results into README.md",
}


class _Parser(argparse.ArgumentParser):
    """A parser that answers an unknown command with what exists."""

    def error(self, message: str) -> NoReturn:
        """Exits with status 2."""
        print(f"error: {self.prog}: {message}", file=sys.stderr)
        if "invalid choice" in message:
            print("A system is run as: python -m experiments.FAMILY.SYSTEM [PRESET]", file=sys.stderr)
        sys.exit(2)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = _Parser(prog="python -m experiments", description="Without a command: the catalogue of all systems.")
    top.add_argument("--json", action="store_true", help="print the catalogue as a JSON list")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    report, record, reproduce, readme = (commands.add_parser(name, help=text) for name, text in COMMANDS.items())
    report.add_argument("directories", nargs="+", type=pathlib.Path, metavar="DIR", help="a finished run")
    report.add_argument("--output", type=pathlib.Path, default=pathlib.Path("report.html"))
    record.add_argument("directory", type=pathlib.Path, metavar="DIR", help="a finished run of an unchanged preset")
    record.add_argument("--source", help="what to call the data where the run read it from a path")
    reproduce.add_argument("system", metavar="SYSTEM", help="such as latent.vae or L3")
    reproduce.add_argument("preset", nargs="?", metavar="PRESET", help="by default the first that was recorded")
    reproduce.add_argument("--data", metavar="SOURCE", help="where the recorded data is on this machine")
    reproduce.add_argument("--workdir", type=pathlib.Path, help="keep the run here, so that it can be resumed")
    reproduce.add_argument("--device-count", type=int, help="virtual CPU devices to split batches over")
    reproduce.add_argument("--tolerance", type=float, default=1e-2, help="relative, of each metric (default 0.01)")
    readme.add_argument("--path", type=pathlib.Path, default=pathlib.Path("README.md"))
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Does what the command line says; 0 (done), 1 (a reproduction differs) or 2 (refused)."""
    options = parser().parse_args(arguments)
    if options.json and options.command:
        parser().error(f"--json goes with no command, got {options.command}")
    try:
        return _run(options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    # Each command imports what it needs: a wrong command line is answered at once.
    if options.command == "report":
        from experiments import report

        print(report.write(options.directories, options.output))
    elif options.command == "record":
        from experiments import records

        print(f"Recorded in {records.record(options.directory, source=options.source)}")
    elif options.command == "reproduce":
        from experiments import reproduce

        keywords = {name: getattr(options, name) for name in ("data", "workdir", "device_count", "tolerance")}
        return reproduce.reproduce(options.system, options.preset, **keywords)
    elif options.command == "readme":
        from experiments import readme

        print(f"{options.path} {'was written' if readme.write(options.path) else 'already agrees'}.")
    else:
        from experiments import catalogue

        print(json.dumps(catalogue.rows(), indent=1)) if options.json else catalogue.show()
    return 0


if __name__ == "__main__":
    sys.exit(main())
