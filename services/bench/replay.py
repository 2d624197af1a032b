"""Replay alone: events per second that a verification compares, and that an export writes."""

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from joblog.projections.replay.verification.report import Report
from joblog.projections.replay.verification.verification import Verification
from joblog.services.bench.measurement import Measurement
from joblog.services.bench.processes import Cluster
from joblog.services.bench.projection import EVENTS_PER_JOB, projector_of, write_log
from joblog.streams.archive.exporting import Wanted, begun, export
from joblog.streams.errors import JoblogError
from joblog.streams.kafka.scan import reading


def replay(cluster: Cluster, jobs: int) -> Iterator[Measurement]:
    """Three events per job, as the elector writes them, applied, and then verified and exported by this process."""
    write_log(cluster, jobs)
    _apply(cluster, jobs * EVENTS_PER_JOB)
    run = {"events": jobs * EVENTS_PER_JOB, "lanes": cluster.lanes}
    with TemporaryDirectory(prefix="joblog-bench-") as directory:
        yield from _verify(cluster, Path(directory), run)
        yield _export(cluster, Path(directory) / "archive", run)


def _apply(cluster: Cluster, events: int) -> None:
    with closing(projector_of(cluster)) as projector:
        applied = 0
        while applied < events:
            applied += projector.step()


def _verify(cluster: Cluster, directory: Path, run: dict[str, int]) -> Iterator[Measurement]:
    """In a process of its own, as the command is: this one has memory of what it measured before."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        report, memory_mb = process.submit(_verified, cluster, directory).result()
    if not report.holds:
        raise JoblogError(f"the benchmark's tables are not what its log says: {report.counts}")
    yield Measurement("replay", "verify", report.events / report.seconds, "events/s", run)
    yield Measurement("replay", "verify_memory", memory_mb, "MB", run)


def _verified(cluster: Cluster, directory: Path) -> tuple[Report, float]:
    """The report, and the most memory that this process had, in MB."""
    verification = Verification(
        cluster.kafka,
        cluster.names,
        cluster.lanes,
        directory,
        dsn=cluster.dsn,
        schema=cluster.schema,
        with_state=False,  # no elector wrote it
    )
    report = verification.run()
    # Not what getrusage tells: that begins with the memory of the process that started this one.
    [peak] = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return report, int(peak.split()[1]) / 1024


def _export(cluster: Cluster, directory: Path, run: dict[str, int]) -> Measurement:
    with reading(cluster.kafka, cluster.names.events) as reader:
        began = time.perf_counter()
        wanted = Wanted(reader.bounds(reader.partitions()))
        manifest = begun(directory, reader.topic, reader.cluster(), wanted)
        export(reader, directory, manifest)
        seconds = time.perf_counter() - began
    return Measurement("replay", "export", manifest.records / seconds, "events/s", run)
