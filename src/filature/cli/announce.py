"""What ``filature up`` tells a person: where it listens, which engine answers, a request to paste."""

import asyncio
import json
import shlex
import signal
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from filature.cli.demo_child import DemoChild
    from filature.proxy.app import Proxy
    from filature.proxy.settings import ProxySettings

_ENGINE_WAIT_S: Final = 5.0
"""Until it is said that no engine answers; then it is waited for silently."""
_LOOK_S: Final = 0.05
_DEMO_LOOK_S: Final = 1.0
_MODELS_SHOWN_MAX: Final = 8


class Announcement:
    """Prints once when the ports are open, and once when an engine answers."""

    def __init__(self, settings: "ProxySettings", demo: "DemoChild | None") -> None:
        self._settings = settings
        self._demo = demo
        self._tasks: list[asyncio.Task[None]] = []

    def listening(self, proxy: "Proxy") -> None:
        """To be called in the proxy's loop, as soon as its ports are open."""
        settings = self._settings
        scheme = "https" if settings.tls_cert else "http"
        url = f"{scheme}://{authority(settings.host, proxy.port)}"
        admin = f"http://{authority(settings.admin_host, proxy.admin_port)}"
        say(f"Filature listens at {url} (metrics: {admin}/metrics); Ctrl-C ends it.")
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self._engines(proxy, url)))
        if self._demo is not None:
            self._tasks.append(loop.create_task(self._demo_lives(self._demo)))

    async def _engines(self, proxy: "Proxy", url: str) -> None:
        if not await _within(_ENGINE_WAIT_S, proxy):
            silent = [engine.name for engine in proxy.engines.engines if not engine.models]
            if self._demo is not None:
                say("Waiting for the model's first token …")
            elif not self._settings.engines:
                say("No worker has joined yet: filature worker-token create NAME")
            elif silent:
                verb = "does" if len(silent) == 1 else "do"
                say(f"Engine: {', '.join(silent)} {verb} not answer yet; asked again and again.")
            while not await _within(_ENGINE_WAIT_S, proxy):
                pass
        models = list(proxy.engines.models())
        shown = ", ".join(models[:_MODELS_SHOWN_MAX])
        if len(models) > _MODELS_SHOWN_MAX:
            shown += f" and {len(models) - _MODELS_SHOWN_MAX} more"
        if self._demo is not None:
            say(f"Engine: {self._demo.description}")
        else:
            kind = "Engine" if self._settings.engines else "Worker"
            say(f"{kind}: " + ", ".join(engine.name for engine in proxy.engines.engines))
        say(f"Models: {shown}")
        settings = self._settings
        say(
            f"Prices, in credits per million tokens: prompt {settings.price_in}, "
            f"cached {settings.price_cached}, completion {settings.price_out}"
        )
        if settings.serves_keyless:
            say("Requests without a key are paid by the account demo: filature account show demo")
        else:
            say("Requests need a key: filature account create NAME, filature key create NAME")
        say(f"\nTry it:\n{curl(url, models[0], keyless=settings.serves_keyless)}\n")

    async def _demo_lives(self, demo: "DemoChild") -> None:
        """Without its engine nothing is left to serve."""
        while demo.status is None:
            await asyncio.sleep(_DEMO_LOOK_S)
        say(f"The demonstration engine ended with status {demo.status}: nothing is left to serve.")
        signal.raise_signal(signal.SIGTERM)


async def _within(seconds: float, proxy: "Proxy") -> bool:
    """Whether some engine's models are known within ``seconds``."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        if proxy.engines.is_ready and proxy.engines.models():
            return True
        await asyncio.sleep(_LOOK_S)
    return False


def curl(url: str, model: str, *, keyless: bool) -> str:
    """A streamed chat request, to be pasted into a shell; where one needs a key, there is a place for it."""
    body = {
        "model": model,
        "stream": True,
        "max_tokens": 30,
        "messages": [{"role": "user", "content": "hi"}],
    }
    key = "" if keyless else "-H 'Authorization: Bearer sk-fil-…' "
    return (
        f"curl -sS -N {key}-H 'Content-Type: application/json' "
        f"-d {shlex.quote(json.dumps(body, separators=(',', ':')))} {url}/v1/chat/completions"
    )


def authority(host: str, port: int) -> str:
    """What a client on this machine connects to: who listens on all of IPv6 does so on it alone."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # compared, not bound
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def say(text: str) -> None:
    """Print at once, for what starts us may be reading a pipe. Where nobody reads it, serving goes on in silence."""
    try:
        print(text, flush=True)
    except OSError:
        sys.stdout = None  # Python's own way to say that there is none
