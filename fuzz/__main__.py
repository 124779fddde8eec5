"""Runs one target until it finds what must not be: ``python -m fuzz TARGET [OPTION…]``, options of libFuzzer.

What was found to lead somewhere is kept in ``build/fuzz/TARGET``, so that the next run goes on there; an input that
failed is written to ``build/fuzz`` and is run again by ``python -m fuzz TARGET FILE``.
"""

import importlib
import sys
from pathlib import Path
from typing import Final

import atheris

_FOLDER: Final = Path("build") / "fuzz"
_WORDS: Final = Path(__file__).parent / "words"
_BYTES_MAX: Final = 3000


def main() -> None:
    with atheris.instrument_imports(include=["filature"]):
        seeds = importlib.import_module("fuzz.seeds")
        if len(sys.argv) < 2 or sys.argv[1] not in seeds.SEEDS:
            sys.exit(f"usage: python -m fuzz {'|'.join(seeds.SEEDS)} [libFuzzer's options]")
        target, options = sys.argv[1], sys.argv[2:]
        check = importlib.import_module(f"fuzz.{target}").check
    if all(option.startswith("-") for option in options):
        seeds.write(target, _FOLDER / target)
        options.append(str(_FOLDER / target))
    defaults = [
        f"-dict={_WORDS / target}",
        f"-max_len={_BYTES_MAX}",
        f"-artifact_prefix={_FOLDER}/{target}-",
    ]
    atheris.Setup([sys.argv[0], *defaults, *options], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
