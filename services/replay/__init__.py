"""What `joblog replay` does, as calls: nothing that a command does cannot be called.

::

    from joblog.services import Settings
    from joblog.services.replay.redriving import Choice, redrive

    redrive(Settings.load(), Choice(exception="ValueError", limit=100), "the disk is back")

| command | call |
|---|---|
| verify | projections.replay.verification.verification.Verification, which takes addresses instead of the settings |
| rebuild | projections.replay.rebuild.rebuild.rebuild, which takes addresses, too |
| history, at, diff | past.history, past.job_at, past.at, past.diff |
| export, import | archives.export_events, archives.import_events |
| redrive, undo | redriving.redrive (redriving.redriving to look at its plan first), redriving.undo |
| what-if | what_if.what_if |

Calls that read or write much take `told`, which is called with how far they are and raises Stopped to stop them (see
streams/progress.py), and go on when they are called again with the same directory, or the id of the redrive.

May import: services.client, services.settings, projections, streams.
"""
