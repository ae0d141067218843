"""The states of an alert, as a table, and what its messages say."""

from __future__ import annotations

import pytest

from lepton_jupyter.formats.alerts import AlertView
from lepton_jupyter.stages.monitor.alerting import Standing, next_standing
from lepton_jupyter.stages.monitor.messages import alert_body, alert_title, report_body, report_title

NONE, PENDING, FIRING, RESOLVED = Standing(), Standing("pending", 1), Standing("firing", 2), Standing("resolved")
DRIFT = {
    "verdict": "DRIFT",
    "headline": "age drifted",
    "sentences": ["age drifted: PSI 0.31 where chance gives 0.03.", "income is missing in 12 % of rows."],
}


@pytest.mark.parametrize(
    ("before", "is_met", "for_reports", "after"),
    [
        (NONE, None, 2, NONE),
        (NONE, False, 2, NONE),
        (NONE, True, 2, PENDING),
        (NONE, True, 1, Standing("firing", 1)),
        (PENDING, None, 2, PENDING),
        (PENDING, True, 2, FIRING),
        (PENDING, True, 3, Standing("pending", 2)),
        (PENDING, False, 2, RESOLVED),
        (FIRING, None, 2, FIRING),
        (FIRING, True, 2, Standing("firing", 3)),
        (FIRING, True, 9, Standing("firing", 3)),
        (FIRING, False, 2, RESOLVED),
        (RESOLVED, True, 2, PENDING),
        (RESOLVED, False, 2, RESOLVED),
        (RESOLVED, None, 2, RESOLVED),
    ],
)
def test_one_more_report_moves_an_alert_as_the_table_says(
    before: Standing, is_met: bool | None, for_reports: int, after: Standing
) -> None:
    assert next_standing(before, is_met, for_reports) == after


def alert(**values: object) -> AlertView:
    return AlertView(
        **{
            "id": 3, "schedule": "monitor-diagnosis", "subject": "diagnosis", "rule": "psi > 0.2", "state": "firing",
            "since": 0.0, "changed_at": 60.0, "value": 0.4123, "text": "psi is 0.412: it meets psi > 0.2.", **values,
        }
    )  # fmt: skip


def test_a_title_has_the_state_the_rule_the_value_and_the_verdict() -> None:
    assert alert_title(alert(), DRIFT) == "[FIRING] diagnosis: psi > 0.2 (0.412), DRIFT"
    assert alert_title(alert(state="resolved", value=0.0), {}) == "[RESOLVED] diagnosis: psi > 0.2 (0)"
    assert alert_title(alert(rule="report failed", value=None), {}) == "[FIRING] diagnosis: report failed"
    assert report_title("diagnosis", DRIFT) == "[REPORT] diagnosis: DRIFT: age drifted"
    assert report_title("weekly.ipynb", {}) == "[REPORT] weekly.ipynb"


def test_a_title_is_one_short_line_whatever_a_report_says() -> None:
    title = report_title("e", {"verdict": "OK\r\nBcc: x@y.z", "headline": "long " * 100})
    assert "\n" not in title and "\r" not in title and len(title) <= 180 and title.endswith("…")


def test_a_body_says_what_changed_and_where_the_report_is() -> None:
    body = alert_body(alert(), DRIFT, where="/home/runs/1/report.html")
    assert body.splitlines()[0] == "psi is 0.412: it meets psi > 0.2."
    for line in ("DRIFT: age drifted", "- income is missing in 12 % of rows.", "Report: /home/runs/1/report.html"):
        assert line in body.splitlines()
    assert "acknowledge alert 3" in body
    assert "acknowledge" not in alert_body(alert(state="resolved"), DRIFT, where="")
    assert "- age drifted: PSI 0.31" in report_body(DRIFT, schedule="s", where="")


def test_a_body_stays_short_whatever_a_report_says() -> None:
    result = {"verdict": 3, "headline": None, "sentences": [{"a": "b" * 9999}] * 99}
    assert len(alert_body(alert(text="x" * 99999), result, where="")) < 10_000
    assert "and 87 more in the report" in alert_body(alert(), result, where="")
    assert "- one sentence" in alert_body(alert(), {"sentences": "one sentence"}, where="")
