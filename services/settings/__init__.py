"""Settings: one frozen model, read once when a process starts.

`model.py` has every setting and its bounds (`kafka.py` those of the brokers), `sources.py` where they come from,
`errors.py` what is printed when one is wrong. To add a setting, add a field: its names in files and in the
environment follow. May import streams' contract and `KafkaConfig`; roles and commands read the settings and pass
values on.
"""
