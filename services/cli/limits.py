"""How limits are written on the command line: KEY, KEY=N, KEY=N/TIME."""

from collections.abc import Sequence

from joblog.services.cli.values import parse_delay
from joblog.services.tasks.limits import Limit
from joblog.streams.errors import InvalidData


def parse_limits(
    mutexes: Sequence[str], semaphores: Sequence[str], rates: Sequence[str], tenant: str | None
) -> list[Limit]:
    """The limits of these options, for one tenant."""
    limits = [Limit.mutex(key, tenant=tenant) for key in mutexes]
    for text in semaphores:
        key, number = _split(text, "--semaphore", "gpu=4")
        limits.append(Limit.semaphore(key, _number(number, "--semaphore", text), tenant=tenant))
    for text in rates:
        key, rest = _split(text, "--rate", "mail=50/1s")
        number, slash, time = rest.partition("/")
        if not slash:
            raise InvalidData(f"--rate {text!r:.100}: write KEY=N/TIME, such as mail=50/1s")
        per = parse_delay(time)
        limits.append(Limit.sliding_window(key, _number(number, "--rate", text), per=per, tenant=tenant))
    if tenant is not None and not limits:
        raise InvalidData("--tenant has no effect without --mutex, --semaphore or --rate")
    return limits


def _split(text: str, option: str, example: str) -> tuple[str, str]:
    key, equals, rest = text.rpartition("=")
    if not equals:
        raise InvalidData(f"{option} {text!r:.100}: write it as {example}")
    return key, rest


def _number(text: str, option: str, whole: str) -> int:
    if not text.isdecimal():
        raise InvalidData(f"{option} {whole!r:.100}: {text!r:.100} is not a number of jobs")
    return int(text)
