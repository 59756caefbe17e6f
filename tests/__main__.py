"""The whole check: format, lint, types, tests. `python -m tests [arguments of pytest]`."""

import subprocess
import sys
import time

CHECKS = {
    "format": ["ruff", "format", "--check", "."],
    "lint": ["ruff", "check", "."],
    "types": ["pyright", "--pythonpath", sys.executable],
    "tests": ["pytest", "-n", "2"],
}


def main() -> int:
    """Runs every check, whatever the ones before it said; 0 if all passed."""
    failed = []
    for name, command in CHECKS.items():
        begun = time.monotonic()
        arguments = sys.argv[1:] if name == "tests" else []
        code = subprocess.run([sys.executable, "-m", *command, *arguments], check=False).returncode
        print(f"{name}: {'failed' if code else 'passed'} in {time.monotonic() - begun:.0f} s", flush=True)
        failed += [name] * bool(code)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
