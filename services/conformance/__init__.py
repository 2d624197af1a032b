"""The contract kit for producers in any language: what Joblog would do with their records, and cases to test with.

The judge runs the electors' own code on lanes in memory; nothing is sent anywhere. The cases are written to
deploy/conformance/cases.json. It may import the contract, the lanes and an elector's turn.
"""
