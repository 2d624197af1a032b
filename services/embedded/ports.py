"""The stack's TCP ports on 127.0.0.1: given, remembered from the last start, or picked from the free ones."""

import json
import random
import socket
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from joblog.streams.errors import StackError

HOST = "127.0.0.1"
# Below the range from which Linux takes the local ports of outgoing connections (32768 up):
# a port picked there could be gone again before the server listens on it.
PICKED_FROM = range(20_000, 32_000)
PICKS_MAX = 100
PORT_MAX = 65_535


def choose_ports(memory: Path, wanted: Mapping[str, int | None], progress: Callable[[str], None]) -> dict[str, int]:
    """A free port for each name in `wanted`, remembered in the file `memory`.

    A port that is asked for must be free; a remembered one is kept if it is still free, so that the
    addresses outlive a restart. Raises StackError for a busy port that was asked for.
    """
    remembered = _remembered(memory)
    ports = dict(remembered)
    for name, port in wanted.items():
        if port is not None and not is_free(port):
            raise StackError(
                f"port {port} on {HOST}, wanted for {name}, is in use by another program; "
                f"stop that program, or give {name} another port (or none: a free one is picked)"
            )
        ports[name] = port or _kept_or_picked(name, remembered.get(name), taken=ports.values(), progress=progress)
    if ports != remembered:
        # Replaced whole: a process that is killed leaves no half file.
        fresh = memory.with_suffix(".new")
        fresh.write_text(json.dumps(ports, indent=2) + "\n")
        fresh.replace(memory)
    return ports


def _remembered(memory: Path) -> dict[str, int]:
    """The ports of the last start; none if the file cannot be read, since others will do."""
    try:
        found = json.loads(memory.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: port for name, port in found.items() if type(port) is int and 0 < port <= PORT_MAX}


def is_free(port: int) -> bool:
    """Whether a server could listen on this port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of the last run that are still in TIME_WAIT do not matter.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _kept_or_picked(
    name: str, remembered: int | None, *, taken: Collection[int], progress: Callable[[str], None]
) -> int:
    if remembered is not None and is_free(remembered):
        return remembered
    picked = _pick(taken)
    if remembered is not None:
        progress(f"port {remembered} is now in use by another program; {name} gets port {picked}")
    return picked


def _pick(taken: Collection[int]) -> int:
    for port in random.sample(PICKED_FROM, PICKS_MAX):
        if port not in taken and is_free(port):
            return port
    raise StackError(f"no free port on {HOST} among {PICKS_MAX} tried from {PICKED_FROM}")
