"""The defences of triggers: every event is handled and makes the same jobs again; nothing stops a partition."""

from typing import Final

from tests.mutants.mutant import Mutant, mutant

_UNIT: Final = "tests/unit/streams/triggers"
_BROKER: Final = "tests/integration/streams/triggers"
_JOBS: Final = "tests/unit/services/triggers/test_triggers.py"

MUTANTS: Final[tuple[Mutant, ...]] = (
    mutant(
        "trigger-acknowledgement",
        "waiting for what follows from a record before it counts as handled",
        "streams/triggers/partitions.py",
        "                await self._handle(delivery.record)\n                delivery.done()\n",
        "                delivery.done()\n                await self._handle(delivery.record)\n",
        f"{_UNIT}/test_partitions.py",
    ),
    mutant(
        "trigger-order",
        "the order of a partition's records",
        "streams/triggers/partitions.py",
        "field(default_factory=asyncio.Queue)",
        "field(default_factory=asyncio.LifoQueue)",
        f"{_UNIT}/test_partitions.py",
    ),
    mutant(
        "trigger-rewind",
        "reading again what Faust has thrown away and nobody has committed",
        "streams/kafka/faust_consumer.py",
        "            await consumer.seek_to_beginning(*new)\n",
        "            pass\n",
        "tests/integration/streams/test_faust_rewinds.py::test_a_trigger_reads_again_what_was_never_committed",
    ),
    mutant(
        "trigger-beginning",
        "the place of a group in a partition without records",
        "streams/triggers/faust_app.py",
        "        reached = self.app.beginnings | self.app.handled\n",
        "        reached = self.app.handled\n",
        f"{_BROKER}/test_odd_records.py"
        "::test_a_group_has_its_place_in_a_topic_that_appeared_while_it_ran_though_there_was_no_event",
    ),
    mutant(
        "trigger-full",
        "the limit of what a partition holds in memory",
        "streams/triggers/partitions.py",
        "            self._on_full(place)\n",
        "",
        f"{_UNIT}/test_partitions.py",
    ),
    mutant(
        "trigger-parking",
        "the dead letter of an event whose function always raises",
        "streams/triggers/handling.py",
        "                    await self._park(record, FUNCTION_RAISED, _told(trigger, error), trigger.name)\n",
        "",
        f"{_UNIT}/test_handling.py",
    ),
    mutant(
        "trigger-letter-place",
        "the place of a record in its dead letter",
        "streams/triggers/handling.py",
        "record.partition, record.offset, own)",
        "record.partition, 0, own)",
        f"{_UNIT}/test_handling.py",
    ),
    mutant(
        "trigger-base-exception",
        "protection from functions that raise no Exception",
        "streams/triggers/handling.py",
        "    except BaseException as error:  # KeyboardInterrupt",
        "    except MemoryError as error:  # KeyboardInterrupt",
        f"{_UNIT}/test_handling.py"
        "::test_a_function_that_raises_is_called_again_and_then_the_event_is_parked[BaseException()]",
    ),
    mutant(
        "trigger-too-large",
        "parking of what Kafka refuses for its size",
        "streams/triggers/writing.py",
        "error.code() in _OF_SIZE",
        "error.code() in ()",
        f"{_UNIT}/test_writing.py",
    ),
    mutant(
        "trigger-resend",
        "sending again what Kafka has not acknowledged",
        "streams/triggers/writing.py",
        "            left = [record for record, _ in failed]\n",
        "            return\n",
        f"{_UNIT}/test_writing.py",
    ),
    mutant(
        "trigger-id-source",
        "the event's source in the ids of its jobs",
        "services/triggers/jobs.py",
        '"trigger", trigger, event.source, event.id,',
        '"trigger", trigger, event.id,',
        _JOBS,
    ),
    mutant(
        "trigger-id-index",
        "the place among the returned jobs in their ids",
        "services/triggers/jobs.py",
        "event.id, str(index))",
        "event.id)",
        _JOBS,
    ),
    mutant(
        "trigger-id-time",
        "ids that tell events of a topic from those of a former one of its name",
        "streams/triggers/incoming.py",
        'f"{record.place}@{record.timestamp_ms}"',
        "record.place",
        f"{_UNIT}/test_incoming.py",
    ),
    mutant(
        "trigger-read-committed",
        "reading of committed events only",
        "streams/triggers/faust_app.py",
        '        faust_consumer.replace(made, "_isolation_level", "read_committed")\n',
        "",
        f"{_BROKER}/test_triggers.py::test_events_of_an_aborted_transaction_are_not_read",
    ),
    mutant(
        "trigger-header-names",
        "reading of header names that are not UTF-8",
        "streams/kafka/faust_consumer.py",
        '        replace(fetcher, "MemoryRecords", Batches)\n',
        "",
        f"{_BROKER}/test_odd_records.py"
        "::test_the_name_of_a_header_that_is_not_utf8_is_parked_and_the_partition_goes_on",
    ),
    mutant(
        "trigger-topic-id",
        "telling a topic from a former one of its name",
        "streams/triggers/faust_app.py",
        "known.metadata != topic_id:",
        "known.metadata == '':",
        f"{_BROKER}/test_odd_records.py::test_an_offset_of_a_former_topic_of_the_same_name_is_no_place_in_this_one",
    ),
    mutant(
        "trigger-latest",
        "the start of a new group at the end, committed before it reads",
        "streams/triggers/starts.py",
        "            commit_offsets(config, group, _ends(config, group, unknown))\n",
        "            _ends(config, group, unknown)\n",
        f"{_BROKER}/test_triggers.py::test_a_new_group_may_begin_at_the_end_and_loses_nothing_from_then_on",
    ),
    mutant(
        "trigger-loop",
        "an event loop of their own for the functions of users",
        "services/triggers/bound.py",
        "            return await self._calls.on_loop(function(event))\n",
        "            return await function(event)\n",
        f"{_JOBS}::test_an_async_function_that_blocks_its_loop_does_not_hold_up_the_process",
    ),
    mutant(
        "trigger-own-event",
        "an event of its own for each call, whatever functions do to theirs",
        "streams/triggers/incoming.py",
        "        headers=list(record.headers),\n",
        "        headers=record.headers,\n",
        f"{_UNIT}/test_handling.py::test_a_function_that_changes_its_event_changes_it_for_nobody_else",
    ),
    mutant(
        "trigger-back",
        "taking what comes in a partition that ends before the place of the group",
        "streams/triggers/faust_app.py",
        "        self._read_offset[tp] = None\n",
        "        pass\n",
        f"{_BROKER}/test_odd_records.py"
        "::test_a_topic_that_ends_before_the_place_of_the_group_is_read_again_and_nothing_new_is_left_out",
    ),
)
