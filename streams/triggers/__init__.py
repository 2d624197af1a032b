"""The process that turns other services' events into jobs.

Events come from topics of others, in any of three forms; user functions say which jobs they are; a job's id is made
from the event, so that an event that is read twice is the same job. An event counts as read when Kafka has
acknowledged everything that follows from it: the create commands of its jobs, or a dead letter.

- incoming: an event, read from a record. handling: from an event to commands or dead letters, with all retries. Both
  know neither Faust nor a broker.
- faust_app: Faust, with what triggers need of it changed. intake: reads the topics by it, hands records on, and keeps
  how far each partition was handled (partitions). starts: where a new group begins to read.
- writing: records that are sent until Kafka has acknowledged them. process: the role around all of it.

May import `streams.contract`, `streams.kafka`, metrics, health and errors.
"""
