"""The whole check: format, lint, types, tests. `python -m tests [arguments of pytest]`."""

import concurrent.futures
import subprocess
import sys
import time

CHECKS = {
    "format": ["ruff", "format", "--check", "."],
    "lint": ["ruff", "check", "."],
    "types": ["pyright", "--pythonpath", sys.executable],
    "tests": ["pytest", "-n", "2"],
}


def check(name: str) -> bool:
    """Runs one check and says how it went, with what it printed; the tests print as they go."""
    begun = time.monotonic()
    arguments = sys.argv[1:] if name == "tests" else []
    command = [sys.executable, "-m", *CHECKS[name], *arguments]
    done = subprocess.run(command, check=False, capture_output=name != "tests", text=True)
    passed = done.returncode == 0
    told = f"{done.stdout or ''}{done.stderr or ''}{name}: {'passed' if passed else 'failed'}"
    print(f"{told} in {time.monotonic() - begun:.0f} s", flush=True)
    return passed


def main() -> int:
    """Runs every check at the same time, whatever the others say; 0 if all passed."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return 0 if all(list(pool.map(check, CHECKS))) else 1


if __name__ == "__main__":
    sys.exit(main())
