"""Three network namespaces: an operator's, an owner's behind NAT, and the router between them. Linux, as root.

The router lets out what the owner's side begins, under its own address, and drops all else that comes from
the operator's side. ``cut`` has it drop everything, as a cable that was pulled does: nobody is told.
"""

import ctypes
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

OPERATOR: Final = "192.0.2.1"
ROUTER: Final = "192.0.2.2"
OWNER: Final = "10.77.0.2"
_GATEWAY: Final = "10.77.0.1"
_CLONE_NEWNET: Final = 0x40000000
_PREFIX: Final = "filature-"
_RULES: Final = """
table ip filature {
  chain out { type nat hook postrouting priority 100; oifname "public" masquerade; }
  chain through {
    type filter hook forward priority 0; policy drop;
    ct state established,related accept
    iifname "private" accept
  }
}
"""


class NoNamespaces(Exception):
    """The machine makes none; the message says why."""


def enter(name: str) -> None:
    """Move this thread, or a process before its ``exec``, into a namespace."""
    _enter(Path("/run/netns", name))


def _enter(place: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    handle = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(handle, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(handle)


class Namespaces:
    """Their names; made and removed by ``behind_nat``."""

    def __init__(self) -> None:
        self.operator, self.router, self.owner = (
            f"{_PREFIX}{os.getpid()}-{side}" for side in ("operator", "router", "owner")
        )
        self.enter_operator = partial(enter, self.operator)
        self.enter_owner = partial(enter, self.owner)

    def socket(self, name: str) -> socket.socket:
        """A TCP socket of a namespace, for this process, which stays where it is."""
        with Path("/proc/thread-self/ns/net").open("rb") as home:
            try:
                enter(name)
                return socket.socket()
            finally:
                _enter(Path(f"/proc/self/fd/{home.fileno()}"))

    def run(self, name: str, *command: str, text: str = "") -> str:
        """A command's output, from inside."""
        return _run("ip", "netns", "exec", name, *command, text=text)

    def cut(self) -> None:
        """From here on no packet passes."""
        chain = "add chain ip filature cut { type filter hook forward priority -10; policy drop; }"
        self.run(self.router, "nft", "-f", "-", text=chain)

    def mend(self) -> None:
        self.run(self.router, "nft", "delete", "chain", "ip", "filature", "cut")

    def make(self) -> None:
        for name in (self.operator, self.router, self.owner):
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        self._join(self.operator, "uplink", f"{OPERATOR}/24", "public", f"{ROUTER}/24")
        self._join(self.owner, "uplink", f"{OWNER}/24", "private", f"{_GATEWAY}/24")
        _run("ip", "-n", self.owner, "route", "add", "default", "via", _GATEWAY)
        # the operator even knows the way: it is the router that lets nothing in
        _run("ip", "-n", self.operator, "route", "add", f"{OWNER}/32", "via", ROUTER)
        self.run(self.router, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        self.run(self.router, "nft", "-f", "-", text=_RULES)

    def _join(self, name: str, here: str, address: str, there: str, router: str) -> None:
        peer = ("peer", "name", there, "netns", self.router)
        _run("ip", "-n", name, "link", "add", here, "type", "veth", *peer)
        for side, link, own in ((name, here, address), (self.router, there, router)):
            _run("ip", "-n", side, "address", "add", own, "dev", link)
            _run("ip", "-n", side, "link", "set", link, "up")


def _run(*command: str, text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoNamespaces(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _remove(*, of_process: int | None = None) -> None:
    """Those of a process; None: of all that are gone, and had no time to."""
    for place in Path("/run/netns").glob(f"{_PREFIX}*"):
        found = re.fullmatch(rf"{_PREFIX}(\d+)-\w+", place.name)
        if found is None:
            continue
        owner = int(found[1])
        if owner == of_process or (of_process is None and not Path(f"/proc/{owner}").exists()):
            _run("ip", "netns", "delete", place.name)


@contextmanager
def behind_nat() -> Iterator[Namespaces]:
    """Raises NoNamespaces where they cannot be had."""
    if os.geteuid() != 0:
        raise NoNamespaces("only root can make them")
    for program in ("ip", "nft"):
        if shutil.which(program) is None:
            raise NoNamespaces(f"there is no {program}")
    _remove()
    made = Namespaces()
    try:
        made.make()
        yield made
    finally:
        _remove(of_process=os.getpid())
