"""The engines the chain is tested with: what each can do, and how those that we start are started."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
ENVIRONMENT: Final = REPOSITORY / ".venv-engines"
MODEL: Final = REPOSITORY / ".models" / "smollm2-135m-instruct"

SELECTED: Final = "FILATURE_TEST_ENGINES"
"""Environment variable: the names of the engines to run, parted by spaces."""

FILATURE: Final = Path(sys.executable).parent / "filature"


@dataclass(frozen=True)
class Kind:
    """A kind of engine. What it can do says which tests are collected for it."""

    name: str
    command: tuple[str | Path, ...] = ()
    """Starts one; ``{port}`` is filled in. Empty: it is only tested by URL."""
    directory: Path = REPOSITORY
    environment: Mapping[str, str] = field(default_factory=dict)
    model: str = ""
    """The name it is asked for; empty: it tells by itself."""
    alias: str = ""
    """The name given to it by hand, where it does not tell."""
    dialects: frozenset[str] = frozenset({"chat", "completions"})
    running_usage: bool = False
    """It tells the usage so far on every event, if asked."""
    refused: Mapping[str, Any] | None = None
    """Members of a chat body that pass our validation and not the engine's."""
    calls_tools: bool = False
    """It obeys ``tool_choice: required`` whatever the model."""
    killed_child: str = ""
    """Of its processes, the one to kill in the middle of an answer; empty: itself."""

    @property
    def in_environment(self) -> bool:
        """Whether it needs .venv-engines."""
        return bool(self.command) and ENVIRONMENT in Path(self.command[0]).parents

    def unavailable(self) -> str:
        """Why it cannot be started here; empty: it can."""
        if not self.command:
            return f"no URL was given: {url_variable(self.name)}=URL[=alias:upstream]"
        if self.name == "demo-model":
            from filature.demo import available_backend

            backend, description = available_backend()
            return "" if backend == "model" else description
        if self.name == "vllm" and not list(ENVIRONMENT.glob("lib/*/site-packages/torch-*+cpu*")):
            return "it needs PyTorch's build for the CPU: see requirements/engines-torch.txt"
        return ""


_EVERY_DIALECT: Final = frozenset({"chat", "completions", "responses", "messages"})
_PYTHON: Final = ENVIRONMENT / "bin" / "python"
_LISTEN: Final = ("--host", "127.0.0.1", "--port", "{port}")
_OFFLINE: Final = {"HF_HUB_OFFLINE": "1"}
# Of threads each engine gets one: with more, every token waits for all of them, and these tests share the cores.

KINDS: Final[Mapping[str, Kind]] = {
    kind.name: kind
    for kind in (
        Kind(
            name="transformers",
            command=(
                *(ENVIRONMENT / "bin" / "transformers", "serve", MODEL.name, *_LISTEN),
                *("--device", "cpu", "--log-level", "info"),
            ),
            directory=MODEL.parent,
            environment={**_OFFLINE, "OMP_NUM_THREADS": "1"},
            model=MODEL.name,
            alias="smollm2",
            dialects=frozenset({"chat", "completions", "responses"}),
            refused={"no_such_member": 1},
        ),
        Kind(
            name="vllm",
            # Its own command line asks for the distribution "vllm", which the CPU build does not go by.
            command=(
                *(_PYTHON, "-W", "ignore", "-m", "vllm.entrypoints.openai.api_server"),
                *("--model", MODEL, "--served-model-name", "smollm2", *_LISTEN),
                *("--max-model-len", "2048", "--max-num-seqs", "4", "--enforce-eager"),
                *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
            ),
            environment={
                **_OFFLINE,
                "VLLM_NO_USAGE_STATS": "1",
                "VLLM_CPU_KVCACHE_SPACE": "1",  # in GiB
            },
            dialects=_EVERY_DIALECT,
            running_usage=True,
            refused={"logprobs": True, "top_logprobs": 1000},
            calls_tools=True,
            killed_child="VLLM::EngineCore",
        ),
        Kind(
            name="demo-model",
            command=(FILATURE, "demo-engine", "--backend", "model", *_LISTEN),
            environment={"RAYON_NUM_THREADS": "1"},
            dialects=_EVERY_DIALECT,
            running_usage=True,
        ),
        Kind(name="sglang", running_usage=True),
        Kind(
            name="llamacpp",
            dialects=_EVERY_DIALECT,
            refused={"grammar": "root ::= ("},
        ),
        Kind(name="ollama"),
    )
}


def url_variable(name: str) -> str:
    return f"FILATURE_TEST_ENGINE_{name.upper().replace('-', '_')}"


def given_urls(environment: Mapping[str, str]) -> dict[str, str]:
    """``URL[=alias:upstream]`` of the engines that run already, by name."""
    return {name: url for name in KINDS if (url := environment.get(url_variable(name), ""))}


def chosen(environment: Mapping[str, str]) -> tuple[list[Kind], dict[str, str]]:
    """The engines to run, and why not those that are not."""
    names = environment.get(SELECTED, "").split()
    urls = given_urls(environment)
    run = []
    not_run = {}
    for kind in KINDS.values():
        if kind.name not in names:
            not_run[kind.name] = "others were asked for"
        elif kind.name in urls:
            run.append(kind)
        elif reason := kind.unavailable():
            not_run[kind.name] = reason
        else:
            run.append(kind)
    return run, not_run
