"""`AlertManager`: who is told of what, once."""

import logging
import math
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar

from recsys.alerting import state as outcome
from recsys.alerting.config import Rule, load_alerts_config
from recsys.alerting.mail import MailSender
from recsys.alerting.masking import masker_for
from recsys.alerting.message import (
    DEFAULT_CHANNELS,
    Alert,
    Channel,
    Severity,
    Texts,
    facts_of,
    parse_channels,
    parse_severity,
)
from recsys.alerting.slack import SlackSender
from recsys.alerting.state import AlertState, Claim
from recsys.errors import InputError
from recsys.logs import fields, file_logger
from recsys.publishing import storable
from recsys.schedule import load_log_format, load_zone
from recsys.settings import Settings, load_settings

HELD_BACK: Final = "held back"
_SUCCESSES: Final = ("success", "completed")
_STATUS_SEVERITY: Final = {
    "failed": Severity.CRITICAL,
    **dict.fromkeys((*_SUCCESSES, "started", "running"), Severity.INFO),
}

_AIRFLOW_URLS: Final = ("AIRFLOW__API__BASE_URL", "RECSYS_AIRFLOW_URL")

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Other = TypeVar("Other")


class AlertManager:
    """Sends alerts to the log, by mail and to Slack, as ``config/alerts_config.yaml`` says.

    State and configuration are those of `settings`, by default ``$RECSYS_HOME`` or the repository;
    `clock` gives the current time, with a time zone. Raises `ConfigError` for a bad configuration.

    Examples
    --------
    >>> manager = AlertManager()
    >>> manager.send_alert("high_latency", "Average latency exceeded 200ms", severity="warning")
    {'log': 'sent', 'email': 'not set up'}
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        settings = settings or load_settings()
        self._setup = load_alerts_config(settings, os.environ)
        self._config = self._setup.config
        self._zone, self._log_format = load_zone(settings), load_log_format(settings)
        self._clock = clock
        self._masker = masker_for(os.environ, self._config.secrets)
        self._log_path = settings.home / self._config.logging.path
        self._state = AlertState(settings.logs / "service" / "alert_state.db")
        self.texts = Texts(self._config.language, self._zone)
        self._senders: dict[Channel, MailSender | SlackSender] = {
            Channel.EMAIL: MailSender(self._config.email, self.texts),
            Channel.SLACK: SlackSender(self._config.slack, self.texts),
        }

    def send_alert(
        self,
        alert_name: str,
        message: str,
        severity: str = "warning",
        channels: Sequence[str] | None = None,
        *,
        context: Mapping[str, Any] | None = None,
    ) -> dict[str, str]:
        """Tell everybody concerned, unless they were told within the cool-down.

        Use one `alert_name` for one condition: repeats are recognised by it. `severity` is
        ``info``, ``warning`` or ``critical``; `channels` any of ``log``, ``email``, ``slack``, by
        default those of the severity; `context` holds details by name, shown below the message;
        ``url`` becomes the link. Returns Channel -> ``sent``, ``failed``, ``not set up`` or ``held
        back``. Raises `InputError` if severity or channel is unknown, with the message in the log.
        """
        facts = facts_of(context)
        link = facts.pop("url", None)
        checked, chosen = self._checked(alert_name, message, severity, channels)
        alert = Alert(alert_name, message, checked, facts=facts, link=link, condition=True)
        return self.deliver(alert, chosen)

    def send_pipeline_alert(
        self, pipeline_name: str, status: str, message: str, severity: str | None = None
    ) -> dict[str, str]:
        """Tell how a pipeline is doing; returns and raises as `send_alert`.

        Without a severity, a status of ``failed`` is critical, ``success``, ``completed``,
        ``started`` and ``running`` are information, and anything else is a warning.
        ``success`` and ``completed`` clear what was wrong before: the next failure is news."""
        name, prefix = f"{pipeline_name}_{status}", f"pipeline:{pipeline_name}:"
        severity = severity or _STATUS_SEVERITY.get(status, Severity.WARNING)
        checked, _ = self._checked(name, message, severity)
        if status in _SUCCESSES:
            for key in self.active(prefix):
                before = key.removeprefix(prefix)
                if _STATUS_SEVERITY.get(before) is not Severity.INFO:
                    self.resolve(f"{pipeline_name}_{before}", message, key=key)
        facts = facts_of({"job": pipeline_name, "status": status})
        return self.deliver(Alert(name, message, checked, facts=facts, key=prefix + status))

    def check_alert_conditions(self, metrics: Mapping[str, float | None]) -> list[dict[str, Any]]:
        """Hold `metrics` against the rules: alert for those broken, resolve those kept.

        A metric that is missing, None or NaN is unknown: its rules neither fire nor clear. Of
        several rules broken by one metric all are returned and logged, and only the most severe
        goes further. Raises `InputError` if the value of a rule's metric is not a number.

        Returns one for each broken rule: ``alert_name``, ``metric``, ``value``, ``threshold``,
        ``comparison``, ``severity``, ``message``, ``channels`` (what became of each)."""
        broken: dict[str, tuple[Rule, float]] = {}
        worst: dict[str, int] = {}
        for name, rule in self._config.alerts.items():
            value = _number(metrics, rule.metric)
            if value is None or not rule.enabled:
                continue
            if rule.is_broken_by(value):
                broken[name] = rule, value
                worst[rule.metric] = max(worst.get(rule.metric, 0), rule.severity.rank)
            else:
                message, blanks = _compared(rule, value)
                self.resolve(name, message, text="rule_cleared", blanks=blanks)
        return [
            self._fire_rule(name, rule, value, only_log=rule.severity.rank < worst[rule.metric])
            for name, (rule, value) in broken.items()
        ]

    def resolve(
        self,
        alert_name: str,
        message: str,
        *,
        key: str = "",
        text: str = "",
        headline: str = "alert_resolved",
        blanks: Mapping[str, str] | None = None,
        quietly: bool = False,
    ) -> dict[str, str]:
        """Say that a condition has cleared, on the channels that were told of it. `key` is what
        repeats of the alert are recognised by, if that is not its name; `text`, `headline` and
        `blanks` are as in `Alert`. Of a condition that is not active nothing is sent, and the
        result is empty; nor is it `quietly`."""
        key = key or alert_name
        cleared = self._remembered(lambda: self._state.resolve(key, self._clock()), otherwise=None)
        if cleared is None or quietly:
            return {}
        notice = Alert(
            alert_name,
            message,
            Severity.INFO,
            text=text,
            headline=headline,
            blanks={"name": alert_name, **(blanks or {})},
            # Not below the key of what was wrong: what is found under that is cleared.
            key=f"resolved#{cleared.alert_id}#{key}",
            until_resolved=True,
            resolved=True,
        )
        return self.deliver(notice, cleared.channels or (Channel.LOG,))

    def active(self, key_prefix: str) -> list[str]:
        """Keys that begin with `key_prefix`, of what was told and has not cleared."""
        return self._remembered(lambda: self._state.active(key_prefix), otherwise=[])

    def deliver(self, alert: Alert, channels: Sequence[Channel] | None = None) -> dict[str, str]:
        """Send `alert` to `channels` (by default those of its severity); as `send_alert`."""
        wanted = tuple(channels or DEFAULT_CHANNELS[alert.severity])
        facts = {name: self._public(value) for name, value in alert.facts.items()}
        alert = replace(alert, facts=facts, link=alert.link and self._public(alert.link))
        clean, now = alert.cleaned(self._masker), self._clock()
        ask = partial(self._state.claim, clean, wanted, now, self._cooldown(clean))
        claim = self._remembered(ask, otherwise=None)
        results = dict.fromkeys(map(str, wanted), HELD_BACK)
        if claim is not None and not claim.channels:
            self._write(logging.INFO, f"{clean.name} held back: {clean.message}")
        # In the order of `Channel`: the log first, then who was told.
        for channel in sorted(claim.channels if claim else wanted, key=list(Channel).index):
            results[channel] = self._deliver_to(channel, clean, claim)
        return results

    def retry_undelivered(self, max_age: timedelta = timedelta(hours=24)) -> int:
        """Try again what a channel refused in the last `max_age`; returns how much arrived now. A
        channel that refuses again is left alone: its queue must not use up the caller's time."""
        arrived, down, now = 0, set[Channel](), self._clock()
        take = partial(self._state.take_undelivered, now, max_age)
        for alert, claim in self._remembered(take, otherwise=[]):
            for channel in claim.channels:
                if channel in down:
                    self._record(claim, channel, outcome.FAILED, "the channel is down")
                elif self._deliver_to(channel, alert, claim) == outcome.SENT:
                    arrived += 1
                else:
                    down.add(channel)
        return arrived

    def was_told_of_runs(self, job: str, since: datetime) -> bool:
        """Whether a failure or a missed deadline of `job` was told since then."""
        ask = partial(self._state.was_told_since, f"{job}/", since)
        return self._remembered(ask, otherwise=False)

    def recent(self, limit: int = 20, since: datetime | None = None) -> list[dict[str, Any]]:
        """The last alerts (told `since` then, or told once and not over), newest first: the
        ``alert``, told ``at`` which local time, its ``repeats`` and ``deliveries``, and when it
        was over, as ``resolved_at``."""
        return self._state.recent(limit, self._zone, since)

    def test_alert(self) -> Alert:
        """An alert that no cool-down holds back, for trying out the channels."""
        now = self._clock()
        return Alert(
            "test_alert",
            f"sent by hand at {self.local_time(now)}",
            Severity.INFO,
            key=f"test_alert/{now.isoformat()}",
        )

    @property
    def heartbeat_url(self) -> str | None:
        """Where `send_heartbeat` asks, None where nobody waits for it."""
        url = self._config.heartbeat.url
        return None if url is None else url.get_secret_value()

    def note_failure(self, what: str, problem: str) -> None:
        """A line in the alert log: nobody else is told."""
        self._write(logging.ERROR, f"{what} failed: {problem}")

    def local_time(self, moment: datetime) -> str:
        """`moment` as people write it here: ``2025-01-15 15:35:00 +07``."""
        return moment.astimezone(self._zone).strftime("%Y-%m-%d %H:%M:%S %Z")

    def _public(self, text: str) -> str:
        """`text`, an address of Airflow's as people outside reach it."""
        public = self._config.public_url
        for base in filter(None, map(os.environ.get, _AIRFLOW_URLS)) if public else ():
            if text == base or text.startswith(f"{base.rstrip('/')}/"):
                return str(public).rstrip("/") + text.removeprefix(base.rstrip("/"))
        return text

    def _checked(
        self, name: str, message: str, severity: str, channels: Sequence[str] | None = None
    ) -> tuple[Severity, tuple[Channel, ...] | None]:
        try:
            return parse_severity(severity), None if channels is None else parse_channels(channels)
        except InputError as error:
            self._write(logging.ERROR, f"{name} refused: {error} | message={message}")
            raise

    def _remembered(self, ask: Callable[[], Result], *, otherwise: Other) -> Result | Other:
        """What the memory of alerts answers; `otherwise`, and a line in the log, without it."""
        try:
            return ask()
        except (sqlite3.Error, OSError) as error:
            self._write(logging.ERROR, f"Alert state unusable, nothing is held back: {error}")
            return otherwise

    def _fire_rule(self, name: str, rule: Rule, value: float, *, only_log: bool) -> dict[str, Any]:
        message, blanks = _compared(rule, value)
        text = f"rule_{rule.comparison}"
        alert = Alert(name, message, rule.severity, text=text, blanks=blanks, condition=True)
        channels = (Channel.LOG,) if only_log else rule.channels
        return {
            "alert_name": name,
            "metric": rule.metric,
            "value": value,
            "threshold": rule.threshold,
            "comparison": rule.comparison,
            "severity": rule.severity.value,
            "message": message,
            "channels": self.deliver(alert, channels),
        }

    def _cooldown(self, alert: Alert) -> timedelta:
        rule = self._config.alerts.get(alert.name)
        own = rule.cooldown_minutes if rule else None
        return timedelta(minutes=self._config.cooldown_minutes if own is None else own)

    def _deliver_to(self, channel: Channel, alert: Alert, claim: Claim | None) -> str:
        status, error = self._attempt(channel, alert)
        if claim is not None:
            self._record(claim, channel, status, error)
        return status

    def _record(self, claim: Claim, channel: Channel, status: str, error: str | None) -> None:
        done = claim.alert_id, channel, status, self._clock(), error
        self._remembered(partial(self._state.finish, *done), otherwise=None)

    def _attempt(self, channel: Channel, alert: Alert) -> tuple[str, str | None]:
        """Try one channel; whatever happens there stays there, as a line in the log."""
        if channel is Channel.LOG:
            self._write(logging.getLevelNamesMapping()[alert.severity.upper()], alert.line)
            return outcome.SENT, None
        sender, about = self._senders[channel], fields(alert=alert.name)
        if lacking := self._setup.lacks(channel):
            self._write(logging.WARNING, f"{sender.name} not set up: {lacking}{about}")
            return outcome.NOT_SET_UP, lacking
        try:
            line = sender.send(alert, self._clock().astimezone(self._zone))
        except Exception as error:  # noqa: BLE001 - no channel may stop the others or the job
            reason = self._masker.mask(f"{type(error).__name__}: {error}")
            self._write(logging.ERROR, f"{sender.name} failed: {reason}{about}")
            return outcome.FAILED, reason
        self._write(logging.INFO, line)
        return outcome.SENT, None

    def _write(self, level: int, line: str) -> None:
        """One line in the alert log; in the process's own log if that cannot be."""
        text = " ".join(self._masker.mask(storable(line)).split())
        if not self._config.logging.enabled:
            return logger.log(level, text)
        try:
            log = file_logger("alerting", self._log_path, self._zone, log_format=self._log_format)
            log.log(level, text)
        except OSError as error:
            logger.log(level, text)
            logger.error("Alert log unusable | path=%s, error=%s", self._log_path, error)


def _number(metrics: Mapping[str, float | None], metric: str) -> float | None:
    value = metrics.get(metric)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"metric {metric}: {value!r} is not a number")
    return None if math.isnan(value) else float(value)


def _compared(rule: Rule, value: float) -> tuple[str, dict[str, str]]:
    """``metric=value > threshold`` for the log, and its three parts for a text."""
    above = rule.comparison == "above"
    sign = (">" if above else "<") if rule.is_broken_by(value) else ("<=" if above else ">=")
    shown, threshold = _rounded(value), _rounded(rule.threshold)
    parts = {"metric": rule.metric, "value": shown, "threshold": threshold}
    return f"{rule.metric}={shown} {sign} {threshold}", parts


def _rounded(value: float) -> str:
    """Four decimals below one, one above: 0.0612, 215.3, 200."""
    return f"{round(value, 4 if abs(value) < 1 else 1):.15g}"
