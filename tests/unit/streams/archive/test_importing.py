"""The transactions in which an import writes."""

from pathlib import Path
from typing import Any

import pytest
from joblog.streams.archive import importing
from joblog.streams.archive.importing import Plan, import_archive
from joblog.streams.archive.lines import Archived
from joblog.streams.archive.manifest import ALL, VERSION, Manifest
from joblog.streams.kafka.clients import KafkaConfig

MEGABYTE = 1024 * 1024


class Transactions:
    """A producer, and a member of a group, that note how many records and bytes each transaction has."""

    def __init__(self) -> None:
        self.records: list[int] = []
        self.bytes: list[int] = []
        self.reached: list[int] = []

    def begin_transaction(self) -> None:
        self.records.append(0)
        self.bytes.append(0)

    def produce(self, _topic: str, value: bytes, *_: Any, **__: Any) -> None:
        self.records[-1] += 1
        self.bytes[-1] += len(value)

    def send_offsets_to_transaction(self, reached: list[Any], *_: Any) -> None:
        self.reached += [one.offset for one in reached]

    def commit_transaction(self, _timeout_s: float) -> None:
        """All is well."""

    def consumer_group_metadata(self) -> None:
        """Nobody asks for it."""

    def close(self) -> None:
        """Nothing is open."""


def test_a_transaction_has_so_many_bytes_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of thousands of large events would not fit into the client's queue, or not be written in time."""
    value = bytes(MEGABYTE)
    log = [Archived(0, n, n + 1, b"key", value, None) for n in range(40)]
    log += [Archived(0, 40 + n, n + 1, b"key", b"{}", None) for n in range(importing.BATCH + 7)]
    written = Transactions()
    monkeypatch.setattr(importing, "_records", lambda *_: iter(log))
    monkeypatch.setattr(importing.clients, "group_consumer", lambda *_: written)
    manifest = Manifest(VERSION, "a1", "t.events", "c", "now", "jsonl", False, ALL, {0: (0, len(log))}, {0: 0})
    plan = Plan("t.events", True, {0: len(log)}, {0: 1})
    count = import_archive(KafkaConfig("nowhere:1"), written, Path(), manifest, plan)  # type: ignore[arg-type]
    assert count == sum(written.records) == len(log) - 1
    assert max(written.bytes) <= 17 * MEGABYTE
    assert max(written.records) <= importing.BATCH
    assert written.reached[-1] == len(log)
    assert len(written.records) < 6
