"""Monitoring with Prometheus and Grafana: rules, alerts, runbooks and dashboards as tables, and what is made of them.

- promql: the names in a query are those of the table of metrics; anything else is an error.
- alerts, records: what Prometheus evaluates, each alert with its runbook and the series that let it fire or not.
- boards: the dashboards as data; grafana makes Grafana's JSON of them. Needs the package grafana-foundation-sdk.
- documents: everything generated into deploy/; `python -m joblog.services.monitoring`.
- server: a Prometheus beside the embedded stack, for `joblog up --monitor`.

May import: streams, and of services the embedded stack and schemas.generated.
"""
