"""The example service behind `joblog demo`: it finds faces, blobs and shapes in photographs.

Written as any service would be: `producer.py` sends requests to a topic of its own, `manager.py` turns them into
jobs, `tasks.py` are the jobs, `monitor.py` follows them in the read model. `stage.py`, `show.py`, `console.py` and
`report.py` set the demonstration up, run it and print it. Nothing else may import this package, except the command.
"""
