"""The contract: every message on every topic, and how it is read and written. Pure, and the base of all packages.

- commands, events: the public messages, as pydantic models; deploy/ holds the schemas that are generated from them.
- controls: commands on queues, workers and bulk operations, which name no job.
- wire: the same messages as msgspec structs, for the path that every job takes; and the private ones (reports,
  assignments, timers), which exist as structs only.
- codec, cloudevents: records to commands and reports. unreadable: what can still be told from a broken one.
- fields, states, retry, ids, timestamps, json_text: what messages are made of.
- topics: all topics, and the tiers of delays. record_headers, deadletters: the rest of a record.
- upcast: old formats of messages, converted to the current ones.

What may be touched: everything, as long as each record that was ever written stays readable; the golden files in
tests/contract hold that. What may be imported: pydantic, msgspec and joblog.streams.errors; no Kafka, no clock.

A message gets a new field: add it with a default to the model and, at the same place, to its struct; a private
message has the struct only. Never rename a field or use its name for something else. Then `make schemas`, and a
golden file beside the old one (`job.create.2.json`). Readers of events and reports ignore unknown fields; commands
with an unknown field are refused, so electors are upgraded before the clients that write it.

A message gets a new type: a model with its own `type`, a member of `Command` or `Event`, its struct in wire, its
row where it is handled (README, "How to add something"), a golden file. Unknown types are parked, so readers are
upgraded before writers.

A message changes its meaning or loses a field: that is a new type, or an upcast in upcast.py from the old format to
the new one, which stays for ever.
"""
