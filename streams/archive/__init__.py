"""Events as files, and files as events: what leaves an installation, and what comes back, byte for byte.

Inside: manifest (what an archive holds), lines (JSON Lines), parquet, choice (which events), exporting, importing.
May import: streams.contract, streams.kafka.
"""
