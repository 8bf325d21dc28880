"""`AlertManager`: who is told of what, once."""

import logging
import math
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from recsys.alerting import state as outcome
from recsys.alerting.config import Rule, load_alerts_config
from recsys.alerting.mail import MailSender
from recsys.alerting.masking import masker_for
from recsys.alerting.message import (
    DEFAULT_CHANNELS,
    Alert,
    Channel,
    NotSetUpError,
    Severity,
    Texts,
    facts_of,
    parse_channels,
    parse_severity,
    storable,
)
from recsys.alerting.slack import SlackSender
from recsys.alerting.state import AlertState, Claim
from recsys.errors import InputError
from recsys.logs import fields, file_logger
from recsys.schedule import load_zone
from recsys.settings import Settings, load_settings

HELD_BACK: Final = "held back"
LEVELS: Final = {
    Severity.INFO: logging.INFO,
    Severity.WARNING: logging.WARNING,
    Severity.CRITICAL: logging.CRITICAL,
}
_SUCCESSES: Final = ("success", "completed")
_STATUS_SEVERITY: Final = {
    "failed": Severity.CRITICAL,
    "success": Severity.INFO,
    "completed": Severity.INFO,
    "started": Severity.INFO,
    "running": Severity.INFO,
}

logger = logging.getLogger(__name__)

Parsed = TypeVar("Parsed")


class AlertManager:
    """Sends alerts to the log, by mail and to Slack, as ``config/alerts_config.yaml`` says.

    Parameters
    ----------
    settings
        Where state and configuration are; by default ``$RECSYS_HOME`` or the repository.
    clock
        The current time, with a time zone.

    Raises `ConfigError` if the configuration is bad; the text names file and key.

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
        setup = load_alerts_config(settings, os.environ)
        self._config = setup.config
        self._zone = load_zone(settings)
        self._clock = clock
        self._masker = masker_for(os.environ, self._config.secrets)
        self._log_path = settings.home / self._config.logging.path
        self._state = AlertState(settings.logs / "service" / "alert_state.db")
        self.texts = Texts(self._config.language)
        self._senders: dict[Channel, MailSender | SlackSender] = {
            Channel.EMAIL: MailSender(self._config.email, setup.unset.get("email", ()), self.texts),
            Channel.SLACK: SlackSender(
                self._config.slack, setup.unset.get("slack", ()), self.texts
            ),
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

        Parameters
        ----------
        alert_name
            What repeats are recognised by: use one name for one condition.
        severity
            ``info``, ``warning`` or ``critical``.
        channels
            Any of ``log``, ``email``, ``slack``; by default those of the severity.
        context
            Details by name, shown below the message; ``url`` becomes the link.

        Returns Channel -> ``sent``, ``failed``, ``not set up`` or ``held back``.

        Raises `InputError` if severity or channel is unknown. The message is in the alert log all
        the same.
        """
        facts = facts_of(context)
        checked = self._checked(parse_severity, severity, alert_name, message)
        chosen = None
        if channels is not None:
            chosen = self._checked(parse_channels, channels, alert_name, message)
        link = facts.pop("url", None)
        return self.deliver(Alert(alert_name, message, checked, facts=facts, link=link), chosen)

    def send_pipeline_alert(
        self, pipeline_name: str, status: str, message: str, severity: str | None = None
    ) -> dict[str, str]:
        """Tell how a pipeline is doing.

        Without a severity, a status of ``failed`` is critical, ``success``, ``completed``,
        ``started`` and ``running`` are information, and anything else is a warning.
        ``success`` and ``completed`` clear what was wrong before: the next failure is news.
        Returns and raises as `send_alert`.
        """
        name = f"{pipeline_name}_{status}"
        checked = self._checked(
            parse_severity,
            severity or _STATUS_SEVERITY.get(status, Severity.WARNING),
            name,
            message,
        )
        if status in _SUCCESSES:
            self._clear_pipeline(pipeline_name, message)
        facts = facts_of({"job": pipeline_name, "status": status})
        key = _pipeline_key(pipeline_name) + status
        return self.deliver(Alert(name, message, checked, facts=facts, key=key))

    def check_alert_conditions(self, metrics: Mapping[str, float | None]) -> list[dict[str, Any]]:
        """Hold `metrics` against the rules: alert for those broken, resolve those kept.

        A metric that is missing, None or NaN is unknown: its rules neither fire nor clear.
        Of several rules broken by one metric all are returned and logged, and only the most
        severe goes further.

        Returns one for each broken rule: ``alert_name``, ``metric``, ``value``, ``threshold``,
        ``comparison``, ``severity``, ``message``, ``channels`` (what became of each).

        Raises `InputError` if the value of a rule's metric is not a number.
        """
        broken: dict[str, tuple[Rule, float]] = {}
        kept: dict[str, tuple[Rule, float]] = {}
        for name, rule in self._config.alerts.items():
            value = _number(metrics, rule.metric)
            if value is not None and rule.enabled:
                (broken if rule.is_broken_by(value) else kept)[name] = rule, value
        for name, (rule, value) in kept.items():
            self._clear_rule(name, rule, value)
        worst = {
            rule.metric: max(
                other.severity.rank for other, _ in broken.values() if other.metric == rule.metric
            )
            for rule, _ in broken.values()
        }
        return [
            self._fire_rule(name, rule, value, only_log=rule.severity.rank < worst[rule.metric])
            for name, (rule, value) in broken.items()
        ]

    def resolve(
        self, alert_name: str, message: str, *, key: str = "", text: str = "", headline: str = ""
    ) -> dict[str, str]:
        """Say that a condition has cleared, on the channels that were told of it.

        `key` is what repeats of the alert are recognised by, if that is not its name. A condition
        that is not active is no news: nothing is sent and the result is empty.
        """
        key = key or alert_name
        try:
            cleared = self._state.resolve(key, self._clock())
        except (sqlite3.Error, OSError) as error:
            self._state_is_out_of_order(error)
            return {}
        if cleared is None:
            return {}
        notice = Alert(
            alert_name,
            message,
            Severity.INFO,
            text=text,
            headline=headline or self.texts.say("alert_resolved", name=alert_name),
            # Not below the key of what was wrong: what is found under that is cleared.
            key=f"resolved#{cleared.alert_id}#{key}",
            until_resolved=True,
            resolved=True,
        )
        return self.deliver(notice, cleared.channels or (Channel.LOG,))

    def deliver(self, alert: Alert, channels: Sequence[Channel] | None = None) -> dict[str, str]:
        """Send `alert` to `channels` (by default those of its severity); as `send_alert`."""
        wanted = tuple(channels or DEFAULT_CHANNELS[alert.severity])
        clean = alert.cleaned(self._masker)
        try:
            claim = self._state.claim(clean, wanted, self._clock(), self._cooldown(clean))
        except (sqlite3.Error, OSError) as error:
            self._state_is_out_of_order(error)
            claim = None
        results = dict.fromkeys(map(str, wanted), HELD_BACK)
        if claim is not None and not claim.channels:
            self._write(logging.INFO, f"{clean.name} held back: {clean.message}")
        # In the order of `Channel`: the log first, then who was told.
        for channel in sorted(claim.channels if claim else wanted, key=list(Channel).index):
            results[channel] = self._deliver_to(channel, clean, claim)
        return results

    def retry_undelivered(self, max_age: timedelta = timedelta(hours=24)) -> int:
        """Try again what a channel refused in the last `max_age`; returns how much arrived now.

        A channel that refuses again is left alone for this time: its queue must not use up the
        time of the job that calls.
        """
        try:
            pending = self._state.take_undelivered(self._clock(), max_age)
        except (sqlite3.Error, OSError) as error:
            self._state_is_out_of_order(error)
            return 0
        arrived, down = 0, set[Channel]()
        for alert, claim in pending:
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
        try:
            return self._state.was_told_since(f"{job}/", since)
        except (sqlite3.Error, OSError) as error:
            self._state_is_out_of_order(error)
            return False

    def recent(self, limit: int = 20) -> list[dict[str, Any]]:
        """The last alerts, newest first: what was told when, and what became of it."""
        return [
            {
                "at": datetime.fromtimestamp(row.created_at, self._zone),
                "alert": row.alert,
                "repeats": row.repeats,
                "deliveries": row.deliveries,
            }
            for row in self._state.recent(limit)
        ]

    def test_alert(self, severity: Severity) -> Alert:
        """An alert that no cool-down holds back, for trying out the channels."""
        now = self._clock()
        return Alert(
            "test_alert",
            f"sent by hand at {self.local_time(now)}",
            severity,
            text=self.texts.say("test"),
            key=f"test_alert/{now.isoformat()}",
        )

    def local_time(self, moment: datetime) -> str:
        """`moment` as people write it here: ``2025-01-15 15:35:00 +07``."""
        return moment.astimezone(self._zone).strftime("%Y-%m-%d %H:%M:%S %Z")

    def _checked(
        self, parse: Callable[[Any], Parsed], value: object, name: str, message: str
    ) -> Parsed:
        """`value` parsed. What is refused is in the alert log all the same."""
        try:
            return parse(value)
        except InputError as error:
            self._write(logging.ERROR, f"{name} refused: {error} | message={message}")
            raise

    def _clear_pipeline(self, pipeline: str, message: str) -> None:
        prefix = _pipeline_key(pipeline)
        try:
            active = self._state.active(prefix)
        except (sqlite3.Error, OSError) as error:
            self._state_is_out_of_order(error)
            return
        for key in active:
            status = key.removeprefix(prefix)
            if _STATUS_SEVERITY.get(status) is not Severity.INFO:
                self.resolve(f"{pipeline}_{status}", message, key=key)

    def _fire_rule(self, name: str, rule: Rule, value: float, *, only_log: bool) -> dict[str, Any]:
        sign = ">" if rule.comparison == "above" else "<"
        shown, threshold = _rounded(value), _rounded(rule.threshold)
        message = f"{rule.metric}={shown} {sign} {threshold}"
        text = self.texts.say(
            f"rule_{rule.comparison}", metric=rule.metric, value=shown, threshold=threshold
        )
        channels = (Channel.LOG,) if only_log else rule.channels
        return {
            "alert_name": name,
            "metric": rule.metric,
            "value": value,
            "threshold": rule.threshold,
            "comparison": rule.comparison,
            "severity": rule.severity.value,
            "message": message,
            "channels": self.deliver(Alert(name, message, rule.severity, text=text), channels),
        }

    def _clear_rule(self, name: str, rule: Rule, value: float) -> None:
        shown, threshold = _rounded(value), _rounded(rule.threshold)
        sign = "<=" if rule.comparison == "above" else ">="
        self.resolve(
            name,
            f"{rule.metric}={shown} {sign} {threshold}",
            text=self.texts.say(
                "rule_cleared", metric=rule.metric, value=shown, threshold=threshold
            ),
        )

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
        try:
            self._state.finish(claim.alert_id, channel, status, self._clock(), error)
        except (sqlite3.Error, OSError) as problem:
            self._state_is_out_of_order(problem)

    def _attempt(self, channel: Channel, alert: Alert) -> tuple[str, str | None]:
        """Try one channel; whatever happens there stays there, as a line in the log."""
        if channel is Channel.LOG:
            self._write(LEVELS[alert.severity], alert.line)
            return outcome.SENT, None
        sender = self._senders[channel]
        about = fields(alert=alert.name)
        try:
            line = sender.send(alert, self._clock().astimezone(self._zone))
        except NotSetUpError as error:
            self._write(logging.WARNING, f"{sender.name} not set up: {error}{about}")
            return outcome.NOT_SET_UP, str(error)
        except Exception as error:  # noqa: BLE001 - no channel may stop the others or the job
            reason = self._masker.mask(f"{type(error).__name__}: {error}")
            self._write(logging.ERROR, f"{sender.name} failed: {reason}{about}")
            return outcome.FAILED, reason
        self._write(logging.INFO, line)
        return outcome.SENT, None

    def _state_is_out_of_order(self, error: Exception) -> None:
        self._write(logging.ERROR, f"Alert state unusable, nothing is held back: {error}")

    def _write(self, level: int, line: str) -> None:
        """One line in the alert log; in the process's own log if that cannot be."""
        text = " ".join(self._masker.mask(storable(line)).split())
        if not self._config.logging.enabled:
            logger.log(level, text)
            return
        try:
            file_logger("alerting", self._log_path, self._zone).log(level, text)
        except OSError as error:
            logger.log(level, text)
            logger.error("Alert log unusable | path=%s, error=%s", self._log_path, error)


def _pipeline_key(pipeline: str) -> str:
    """Before the status, in the keys of what `AlertManager.send_pipeline_alert` sends."""
    return f"pipeline:{pipeline}:"


def _number(metrics: Mapping[str, float | None], metric: str) -> float | None:
    value = metrics.get(metric)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"metric {metric}: {value!r} is not a number")
    return None if math.isnan(value) else float(value)


def _rounded(value: float) -> str:
    """Four decimals below one, one above: 0.0612, 215.3, 200."""
    return f"{round(value, 4 if abs(value) < 1 else 1):.15g}"
