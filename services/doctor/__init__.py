"""`joblog doctor`: checks everything that an installation needs, and says how to fix what is wrong.

- doctor: what a finding is, and how checks are run. this_process, kafka, lanes, postgres: the checks.
- Rules are functions of values (`broker_findings`, `setting_findings`, ...), tested without servers.

Changes nothing. A new check is a function from settings to findings: the function for its server calls it, or
services/cli/commands/doctor.py lists it. May import settings, `roles.http`, `streams` and `projections`; only the
command line imports it.
"""
