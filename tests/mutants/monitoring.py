"""The defences of metrics, alerts and traces."""

from typing import Final

from tests.mutants.mutant import Mutant, mutant

_BOUNDS: Final = "tests/unit/streams/test_metrics_bounds.py"
_METRICS: Final = "tests/unit/streams/test_metrics.py"
_DOCUMENTS: Final = "tests/unit/services/monitoring/test_documents.py"
_ELECTIONS: Final = "tests/unit/services/tracing/test_elections.py"

MUTANTS: Final[tuple[Mutant, ...]] = (
    mutant(
        "label-values",
        "the cap on the values of labels other than queue and task",
        "streams/metrics.py",
        'PARTITIONS_MAX if label == "partition" else VALUES_MAX',
        "10**9",
        f"{_BOUNDS}::test_no_label_is_unbounded",
    ),
    mutant(
        "label-pairs",
        "the cap on pairs of a queue and a task",
        "streams/metrics.py",
        'if name in _PAIRED and self._pairs("\\0".join(shown[:2])) == OTHER:',
        "if False:",
        f"{_BOUNDS}::test_pairs_of_queues_and_tasks_are_bounded_too",
    ),
    mutant(
        "gauge-one-source",
        "exporting a metric only from the roles that know it",
        "streams/metrics.py",
        "registry = self.registry if role is None or not row.roles or role in row.roles else None",
        "registry = self.registry",
        f"{_METRICS}::test_a_role_exports_its_own_metrics_and_the_known_series_as_zero",
    ),
    mutant(
        "gauge-replaced",
        "dropping the series of a gauge that are there no longer",
        "streams/metrics.py",
        "            gauge.remove(*labels)\n",
        "            pass\n",
        f"{_METRICS}::test_a_gauge_that_is_replaced_keeps_no_old_series_and_joins_those_beyond_the_cap",
    ),
    mutant(
        "alert-lasts",
        "waiting until an alert's expression has held for long enough",
        "services/monitoring/rules.py",
        '"for": pace.lasts(alert.lasts),',
        '"for": "0m",',
        f"{_DOCUMENTS}::test_each_alert_fires_when_it_should_and_not_when_it_should_not",
    ),
    mutant(
        "alert-rebuilding",
        "leaving lanes that an operator rebuilds out of the alert on lanes set aside",
        "services/monitoring/alerts_of_roles.py",
        """'sum by (reason) (joblog_lanes_aside{reason!="rebuilding"}) > 0',""",
        """'sum by (reason) (joblog_lanes_aside) > 0',""",
        f"{_DOCUMENTS}::test_each_alert_fires_when_it_should_and_not_when_it_should_not",
    ),
    mutant(
        "spans-sampled",
        "leaving jobs whose trace is not recorded out of the spans of elections",
        "services/tracing/elections.py",
        "type(event) is JobEvent and recorded_trace(traceparent) is not None:",
        "type(event) is JobEvent:",
        f"{_ELECTIONS}::test_jobs_that_are_not_recorded_take_nothing_of_the_limit",
    ),
    mutant(
        "spans-limit",
        "the limit on spans of elections in a second",
        "services/tracing/elections.py",
        "        return self._made <= self._per_s\n",
        "        return True\n",
        f"{_ELECTIONS}::test_no_more_than_so_many_are_made_in_a_second_and_the_rest_is_counted",
    ),
    mutant(
        "spans-errors",
        "electing on when spans cannot be made",
        "services/tracing/elections.py",
        "        except Exception:  # a sampler",
        "        except ZeroDivisionError:  # a sampler",
        f"{_ELECTIONS}::test_an_error_of_the_tracer_is_logged_and_stops_nothing",
    ),
)
