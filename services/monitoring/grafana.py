"""Grafana's JSON of a dashboard, made with Grafana's own library."""

import json
from collections.abc import Iterator
from itertools import count
from typing import Final

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendPlacement, StackingMode, TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from joblog.services.monitoring.board import Board, Panel, Row
from joblog.services.monitoring.promql import with_variables

TAG: Final = "joblog"
SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
#: The metric of which a variable offers the values of its label; one that is there from the start.
_VALUES: Final = {"queue": "joblog_jobs", "task": "joblog_jobs_started_total", "instance": "joblog_build_info"}
#: All values of a variable, those of series without the label among them.
_ALL: Final = ".*"
_NUMBER_HEIGHT: Final = 4
_HEIGHT: Final = 8

_Builder = timeseries.Panel | stat.Panel


def dashboard_json(board: Board) -> str:
    """The file that is provisioned; UnknownMetric if a query names what is not there."""
    return json.dumps(_built(board), cls=JSONEncoder, indent=2) + "\n"


def _built(board: Board) -> object:
    ids = count(1)
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags([TAG])
        .readonly()
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("30s")
        .variables([_source(), *map(_variable, _VALUES)])
        .link(_others())
    )
    for row in board.rows:
        made.with_row(dashboard.Row(row.title).id(next(ids)))
        for panel in _panels(row, ids):
            made.with_panel(panel)
    return made.build()


def _source() -> dashboard.DatasourceVariable:
    return dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")


def _variable(label: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(label)
        .label(label.capitalize())
        .datasource(SOURCE)
        .query(f"label_values({_VALUES[label]}, {label})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(_ALL)
        .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def _others() -> dashboard.DashboardLink:
    link = dashboard.DashboardLink("Joblog").type(DashboardLinkType.DASHBOARDS).tags([TAG])
    return link.as_dropdown(True).include_vars(True).keep_time(True)


def _panels(row: Row, ids: Iterator[int]) -> Iterator[_Builder]:
    for panel in row.panels:
        made = _number() if panel.is_number else _over_time(panel)
        made.id(next(ids)).title(panel.title).description(panel.description).unit(panel.unit).datasource(SOURCE)
        for place, (query, legend) in enumerate(panel.queries):
            made.with_target(_target(query, legend, chr(ord("A") + place)))
        yield made


def _number() -> stat.Panel:
    return (
        stat.Panel().height(_NUMBER_HEIGHT).span(6).reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )


def _over_time(panel: Panel) -> timeseries.Panel:
    legend = common.VizLegendOptions().show_legend(True).placement(LegendPlacement.BOTTOM)
    tooltip = common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI)
    made = timeseries.Panel().height(_HEIGHT).span(12).min(0).legend(legend).tooltip(tooltip).fill_opacity(10)
    if panel.is_stacked:
        made.stacking(common.StackingConfig().mode(StackingMode.NORMAL)).fill_opacity(20)
    return made


def _target(query: str, legend: str, ref_id: str) -> prometheus.Dataquery:
    made = prometheus.Dataquery().expr(with_variables(query)).legend_format(legend).ref_id(ref_id)
    return made.datasource(SOURCE).range().exemplar(True)
