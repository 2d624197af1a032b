"""One session of a worker, under one id: it announces itself, runs what it is assigned, and gives back the rest."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import Final

from joblog.services.tasks.context import Cause
from joblog.services.worker.announcing import Announcer, LaneBook
from joblog.services.worker.assignments import Assignments, AssignmentsLost
from joblog.services.worker.execution.run import KnownTask, Leases, Run, clock
from joblog.services.worker.intake import Intake
from joblog.services.worker.options import WorkerOptions
from joblog.services.worker.orders import Orders
from joblog.services.worker.report_sender import ReportSender
from joblog.services.worker.reports import Endings, Reports, RunMeters
from joblog.services.worker.served_lanes import ServedLanes
from joblog.services.worker.slots import Slots
from joblog.streams.errors import JoblogError
from joblog.streams.health import Health
from joblog.streams.metrics import Meters

log = logging.getLogger(__name__)

#: How often the loop checks leases, time-outs, waiting jobs and offers, in seconds.
TURN_S: Final = 0.05
#: How long a run may take to end after its token was cancelled, when the grace time of a stop is over.
LAST_S: Final = 1.0
#: How long a worker that stops still reads: an elector may have assigned a job before it read the last offer.
SETTLE_S: Final = 0.25
FLUSH_S: Final = 5.0


class LeaseLost(JoblogError):
    """No renewal was acknowledged for so long that the electors may have given the jobs to other workers."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What all sessions of one worker share."""

    settings: WorkerOptions
    known: Mapping[str, KnownTask]
    slots: Slots
    sender: ReportSender
    reports: Reports
    endings: Endings
    run_meters: RunMeters
    health: Health
    meters: Meters
    orders: Orders = field(default_factory=Orders)


class Session:
    """The worker's loop. The threads that run jobs use nothing of it but the leases, and `held` when a run ends."""

    def __init__(self, parts: Parts, worker: str, assignments: Assignments) -> None:
        settings, now = parts.settings, clock()
        self._parts = parts
        self._settings = settings
        self._assignments = assignments
        policies = {name: known.retry for name, known in parts.known.items()}
        self._served = ServedLanes(settings)
        self._leases = Leases(self._served.queues, settings.fence_s, now)
        self._announcer = Announcer(parts.reports, settings, worker, policies, self._leases, self._served)
        self._book = LaneBook(self._announcer.lanes, settings.slots, settings.prefetch, settings.release_after_s)
        self._intake = Intake(
            worker=worker,
            lanes=settings.lanes,
            queues=settings.queues,
            known=parts.known,
            slots=parts.slots,
            endings=parts.endings,
            reports=parts.reports,
            meters=parts.run_meters,
            leases=self._leases,
            orders=parts.orders,
            served=self._served,
        )
        self._is_draining = False
        if parts.orders.is_quiet:
            self._be_quiet()
        self._next_turn = now

    def run(self, stop: Event) -> bool:
        """Work until `stop`, then drain. Returns early, with nothing held, when the session cannot go on.

        False when that was for an error that nobody foresaw: the caller should not try again at once.
        """
        is_well = True
        try:
            while not stop.is_set():
                self._step()
                self._parts.orders.obey(stop)
            self._drain()
        except LeaseLost as exc:
            self._end("worker.lease_lost", str(exc))
            self._intake.give_up(Cause.LEASE_LOST)
        except AssignmentsLost as exc:
            self._end("worker.assignments_lost", str(exc))
            self._intake.give_back_all(str(exc))
        except Exception as exc:
            log.exception("worker.session_failed")
            self._end("worker.session_ended", f"an error of the worker: {type(exc).__name__}")
            self._intake.give_back_all("the session of the worker ended by an error")
            is_well = False
        # The electors need not wait for the end of a lease that nobody uses.
        self._announcer.announce_stop()
        if stop.is_set():
            self._parts.sender.drain(FLUSH_S)
        return is_well

    def _end(self, event: str, reason: str) -> None:
        self._parts.health.set_unready(reason)
        log.warning(event, extra={"reason": reason, "held": len(self._intake.held)})

    def _step(self) -> None:
        """Take what was assigned, and do the rest when it is time."""
        arrived = self._assignments.take(max(0.0, self._next_turn - clock()))
        if arrived:
            # The process may have been stopped since the last turn: nothing starts without a lease.
            self._fence(clock())
            self._intake.accept(arrived)
            self._obey()
            self._serve(clock())
        self._parts.sender.turn()
        now = clock()
        if now >= self._next_turn:
            self._turn(now)

    def _turn(self, now: float) -> None:
        """Do what is to be done regularly."""
        health = self._parts.health
        health.beat()
        self._fence(now)
        self._serve(now)
        if not health.ready and self._announcer.is_announced and not self._is_draining:
            health.set_ready()
        running = self._parts.slots.running
        self._parts.meters.set("joblog_worker_slots_used", len(running))
        self._parts.run_meters.flush()
        self._send_told(running, now)
        self._next_turn = min(now + TURN_S, self._parts.endings.time_out_late(running, now))
        self._release_and_announce(now)

    def _fence(self, now: float) -> None:
        """Stop the runs of lanes whose lease may be over; end the session if that is all, or if it cannot read.

        If the lease is over in one lane of several, a partition is not available. Its jobs are given back: its
        elector may not have noticed, and would wait for them for as long as this worker renews.
        """
        stale = self._leases.over(now)
        if len(stale) == len(self._announcer.lanes):
            raise LeaseLost(f"no renewal was acknowledged for {self._settings.fence_s:g} s")
        if stale:
            lost = [run for run in list(self._intake.held.values()) if run.job.lane in stale]
            if lost:
                log.warning("worker.lanes_lost", extra={"lanes": sorted(stale), "held": len(lost)})
            self._intake.fence(lost, f"no renewal was acknowledged for {self._settings.fence_s:g} s")
        if now - self._assignments.read_at(now) > self._settings.lease_s:
            raise AssignmentsLost(f"the assignments could not be read to their end for {self._settings.lease_s:g} s")

    def _send_told(self, running: list[Run], now: float) -> None:
        """Report what runs have said of themselves, each at most once a second."""
        for run in running:
            told = run.told
            if told is not None and told.due_at <= now and run.key in self._intake.held:
                told.send_by(partial(self._parts.reports.progressed, run), now)

    def _release_and_announce(self, now: float) -> None:
        """Give back what waited too long, but first lower the offer to its lane, so that it does not come again."""
        old = self._parts.slots.withdraw_older(now - self._settings.release_after_s)
        for lane in {run.job.lane for run in old}:
            self._book.lower(lane, now)
        offers = self._book.offers(self._parts.slots, now)
        is_closed = self._is_draining or self._announcer.is_quiet
        self._announcer.announce(dict.fromkeys(offers, 0) if is_closed else offers, now)
        self._intake.release(old, f"no slot was free within {self._settings.release_after_s:g} s")

    def _serve(self, now: float) -> None:
        """Announce the worker to further lanes, and leave those that it was not told of for long."""
        new, left = self._served.turn(now, {run.job.lane for run in list(self._intake.held.values())})
        for lane in new:
            self._leases.begin(lane, now)
        for lane in left:
            self._leases.end(lane)
            self._announcer.leave(lane)
        self._book.lanes = self._announcer.lanes
        if new:
            self._next_turn = now

    def _obey(self) -> None:
        """Take no more jobs, or some again, if that is what the worker was told."""
        if self._parts.orders.is_quiet == self._announcer.is_quiet:
            return
        if self._parts.orders.is_quiet:
            self._be_quiet()
            self._offer_nothing()
        elif not self._is_draining:
            self._announcer.is_quiet = False
            self._intake.open()

    def _be_quiet(self) -> None:
        """Take no more jobs, and give back what waits, but go on with what runs."""
        self._announcer.is_quiet = True
        self._intake.close("the worker was told to take no more jobs")

    def _offer_nothing(self) -> None:
        self._announcer.announce(dict.fromkeys(self._announcer.lanes, 0), clock(), at_once=True)

    def _drain(self) -> None:
        """1 offer no slots, 2 give back what waits, 3 let the rest end, 4 cancel what is left, 5 give it back."""
        log.info("worker.stopping", extra={"held": len(self._intake.held)})
        now = clock()
        self._is_draining = True
        self._parts.health.set_unready("stopping")
        self._offer_nothing()
        self._intake.close("the worker stops")
        self._wait_for_ends(now + self._settings.grace_s, at_least_until=now + SETTLE_S)
        for run in list(self._intake.held.values()):
            run.stop(Cause.SHUTDOWN)
        self._wait_for_ends(clock() + LAST_S)
        self._intake.release(list(self._intake.held.values()), "released on shutdown")

    def _wait_for_ends(self, until: float, at_least_until: float = 0.0) -> None:
        while clock() < (until if self._intake.held else at_least_until):
            self._step()
