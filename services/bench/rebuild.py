"""A rebuild of the tables: events per second from a log that is written beforehand."""

from collections.abc import Iterator

from joblog.projections.replay.rebuild.place import Place
from joblog.projections.replay.rebuild.rebuild import PROCESSES, rebuild
from joblog.projections.schema.schema import drop
from joblog.services.bench.measurement import Measurement
from joblog.services.bench.processes import Cluster
from joblog.services.bench.projection import EVENTS_PER_JOB, write_log


def replay_rebuild(cluster: Cluster, jobs: int, processes: int = PROCESSES) -> Iterator[Measurement]:
    """Three events per job, as the elector writes them, filled into new tables, which are then swapped in."""
    write_log(cluster, jobs)
    place = Place(cluster.kafka, cluster.names, cluster.lanes, cluster.dsn, cluster.schema)
    try:
        done = rebuild(place, processes=processes, verify=False)
    finally:
        drop(cluster.dsn, place.schemas.new)
        drop(cluster.dsn, place.schemas.old)
    run = {"events": jobs * EVENTS_PER_JOB, "lanes": cluster.lanes, "processes": processes}
    yield Measurement("replay", "rebuild", done.rate, "events/s", run)
    yield Measurement("replay", "rebuild_swap", done.swap_s * 1000, "ms", run)
