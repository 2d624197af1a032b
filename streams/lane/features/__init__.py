"""What a lane does beside moving jobs: each feature is one file here and one line in catalog.py.

A feature (base class in lane/feature.py) owns its records in the `state` topic by the prefix of their keys, handles
its own reports, and acts at the hooks that it declares. It may use the pipeline; it must not know the lane, other
features, Kafka, or a clock.
"""
