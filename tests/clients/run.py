"""Set up the environments of the client tests and run them: what `make test-clients` calls.

Python's SDKs and Node.js itself come from requirements/clients.txt into .venv-clients, the SDKs of
Node.js from node/package-lock.json. Both are installed again only when their lock changes. With
``--write`` the table goes to docs/clients.md; without, it must be what is there. Words select rows or
cases by their names, as in ``openai abort``; then no table is compared.
"""

import argparse
import difflib
import hashlib
import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
REPOSITORY = TESTS.parents[1]
ENVIRONMENT = REPOSITORY / ".venv-clients"
PYTHON_LOCK = REPOSITORY / "requirements" / "clients.txt"
NODE = TESTS / "node"
NODE_LOCK = NODE / "package-lock.json"
RESULT = REPOSITORY / "build" / "clients" / "clients.md"
DOCUMENT = REPOSITORY / "docs" / "clients.md"


def is_current(stamp: Path, lock: Path) -> bool:
    """Whether what ``stamp`` stands for was installed from ``lock`` as it is now."""
    return stamp.exists() and stamp.read_text() == hashlib.sha256(lock.read_bytes()).hexdigest()


def mark_current(stamp: Path, lock: Path) -> None:
    stamp.write_text(hashlib.sha256(lock.read_bytes()).hexdigest())


def install_python() -> None:
    stamp = ENVIRONMENT / "installed-from"
    if is_current(stamp, PYTHON_LOCK):
        return
    print(f"Installing {PYTHON_LOCK.relative_to(REPOSITORY)} ...", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
    pip = [ENVIRONMENT / "bin" / "python", "-m", "pip", "install", "-qq"]
    subprocess.run([*pip, "--require-hashes", "--requirement", PYTHON_LOCK], check=True)
    mark_current(stamp, PYTHON_LOCK)


def install_node(environment: dict[str, str]) -> None:
    stamp = NODE / "node_modules" / ".installed-from"
    if is_current(stamp, NODE_LOCK):
        return
    print(f"Installing {NODE_LOCK.relative_to(REPOSITORY)} ...", flush=True)
    npm = ENVIRONMENT / "bin" / "npm"
    command = [npm, "ci", "--ignore-scripts", "--loglevel=error"]
    subprocess.run(command, cwd=NODE, env=environment, check=True)
    mark_current(stamp, NODE_LOCK)


def compare() -> int:
    """Print how the table differs from the document; 1 if it does."""
    made = RESULT.read_text().splitlines(keepends=True)
    kept = DOCUMENT.read_text().splitlines(keepends=True) if DOCUMENT.exists() else []
    difference = list(difflib.unified_diff(kept, made, str(DOCUMENT), str(RESULT)))
    if not difference:
        return 0
    sys.stdout.writelines(difference)
    print(f"{DOCUMENT.relative_to(REPOSITORY)} is out of date: run {Path(__file__).name} --write")
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/clients.md")
    parser.add_argument("words", nargs="*", help="run only tests with any of these in their names")
    options, pytest_arguments = parser.parse_known_args()
    if options.words:
        pytest_arguments += ["-k", " or ".join(options.words)]
    if not (REPOSITORY / ".venv" / "bin" / "filature").exists():
        print("There is no .venv/bin/filature: run `make setup` first.", file=sys.stderr)
        return 2
    install_python()
    path = f"{ENVIRONMENT / 'bin'}{os.pathsep}{os.environ['PATH']}"
    # Everything is on this machine: a proxy that the environment names must not be asked.
    environment = os.environ | {"PATH": path, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    install_node(environment)

    # Arguments select some cells; only a whole run makes a table that can be compared.
    whole = not pytest_arguments
    RESULT.unlink(missing_ok=True)
    pytest = [ENVIRONMENT / "bin" / "python", "-m", "pytest", "-c", TESTS / "pytest.ini", "-q"]
    command = [*pytest, *pytest_arguments]
    status = subprocess.run(command, check=False, cwd=TESTS, env=environment).returncode
    if status or not whole:
        return status
    if options.write:
        DOCUMENT.parent.mkdir(exist_ok=True)
        DOCUMENT.write_text(RESULT.read_text())
    return compare()


if __name__ == "__main__":
    sys.exit(main())
