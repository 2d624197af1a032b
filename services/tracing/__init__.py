"""OpenTelemetry traces (extra `otel`): from the call that creates a job, through elections and waiting, to its runs.

The trace context is the `traceparent` of the job's commands and events, so a trace goes on after days in a delay
topic, in another process or another language. The filters are beside what they filter, in client/ and worker/; the
elector's spans are made here, in elections.
"""
