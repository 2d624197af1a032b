"""The tables built anew from the log, beside the live ones, and put in their place.

A schema beside the live one, `SCHEMA_new`, is filled from the beginning of `events` by several processes, each with
lanes of its own, while the live projector goes on; when it has caught up it is compared with the log; then the
schemas are renamed, in one short transaction, and the former tables stay as `SCHEMA_old`, for a way back.

All that a rebuild knows is in the database: how far the new tables are is in their own offsets, moved in the
transaction of what was applied. So it may be stopped or killed at any moment, and the next call goes on.

Inside: rebuild (the steps in their order), schemas (the three schemas, and what may not be replaced), filling (the
processes), share (how much they work beside others), catch_up (the last events), swap (the renaming; its theory is
there). May import: all of projections, streams; `services.cli` and `services.bench` call `rebuild`, `plan`,
`roll_back`, `drop_old` and `status`.
"""
