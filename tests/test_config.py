import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, get_args

import pytest
import yaml
from pydantic import Field, SecretStr, ValidationError

from recsys.alerting.config import AlertsConfig, Metric, load_alerts_config
from recsys.comments.scoring import CommentConfig
from recsys.config import RETIRED, ConfigError, ConfigModel, load_config, read_mapping
from recsys.content import ContentConfig
from recsys.data.config import DataConfig
from recsys.deployment import DeploymentConfig
from recsys.drift.config import DriftConfig, HolidayCalendar
from recsys.health.config import HealthConfig, MetricsConfig
from recsys.health.service import judged, service_metrics
from recsys.merchandising.placements import PlacementsConfig
from recsys.merchandising.rules import RulesConfig
from recsys.outcomes.config import OutcomesConfig
from recsys.privacy import PrivacyConfig
from recsys.schedule import SchedulerConfig
from recsys.settings import REPOSITORY, Settings
from recsys.spark.session import SparkConfig
from recsys.storage import StorageConfig
from recsys.training.config import TrainingConfig
from recsys.upkeep import MaintenanceConfig
from serving.config import ServingConfig

MODELS = (
    AlertsConfig,
    CommentConfig,
    ContentConfig,
    DataConfig,
    DeploymentConfig,
    DriftConfig,
    HealthConfig,
    HolidayCalendar,
    MaintenanceConfig,
    OutcomesConfig,
    RulesConfig,
    PlacementsConfig,
    PrivacyConfig,
    SchedulerConfig,
    ServingConfig,
    SparkConfig,
    StorageConfig,
    TrainingConfig,
)
SHIPPED_BEFORE = Path(__file__).parent / "old_state/config"
# What only a shop can know, or is long: the file shows it, and there is no default.
WITHOUT_DEFAULT = {
    AlertsConfig: {
        "email": {"smtp_server", "sender", "password", "recipients"},
        "slack": {"webhook_url", "channel"},
        "heartbeat": {"url"},
    },
    HolidayCalendar: {"holidays": True},
}

WRONG = (
    "nothing",
    "[]",
    "[1, [2]]",
    "{a: 1}",
    "{a: {}}",
    "-1",
    "0.5",
    "1.e+14",
    "~",
    "[{a: b}]",
    '""',
)


class Login(ConfigModel):
    user: str = "shop"
    password: SecretStr | None = None


class Shelf(ConfigModel):
    FILE = "shelf.yaml"
    ENTRIES: ClassVar = {"prices": {"soap": {"amount": 3}}}

    width: int = Field(default=4, ge=1)
    keep_days: float = 3
    labels: tuple[str, ...] = ("a", "b")
    login: Login = Login()
    prices: dict[str, dict[str, float]] = Field(default_factory=dict)


def write(settings: Settings, text: str, name: str = "shelf.yaml") -> Path:
    path = settings.home / "config" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def error_of(settings: Settings, text: str) -> str:
    path = write(settings, text)
    with pytest.raises(ConfigError) as caught:
        load_config(settings, Shelf)
    assert str(path) in str(caught.value)
    return str(caught.value).replace(str(path), "FILE")


def load_any(settings: Settings, model: type[ConfigModel]) -> ConfigModel:
    if model is AlertsConfig:
        return load_alerts_config(settings, {}).config
    return load_config(settings, model)


def shipped_config(model: type[ConfigModel]) -> ConfigModel:
    return load_any(Settings(REPOSITORY), model)


@pytest.mark.parametrize("model", MODELS)
def test_what_a_shipped_file_says_is_the_default(model: type[ConfigModel]) -> None:
    shipped = shipped_config(model)
    exceptions = WITHOUT_DEFAULT.get(model)
    assert shipped.model_dump(exclude=exceptions) == model().model_dump(exclude=exceptions)


def test_every_shipped_file_has_a_model() -> None:
    files = {path.name for path in (REPOSITORY / "config").glob("*.yaml")}
    assert files == {model.FILE for model in MODELS} - {"scheduler_config.json"}


def test_a_file_of_the_state_root_states_only_what_differs(settings: Settings) -> None:
    write(settings, "model_types: [als]\n", "training.yaml")
    config = load_config(settings, TrainingConfig)
    assert config == TrainingConfig(model_types=["als"])
    assert (config.tuning.seconds, config.tuning.trials) == (30, 25)


def test_local_files_are_laid_over_those_that_git_knows(settings: Settings) -> None:
    write(settings, "model_types: [als]\ntuning: {trials: 3, seconds: 5}\n", "training.yaml")
    (settings.home / "config/local").mkdir()
    write(settings, "tuning: {trials: 4}\n", "local/training.yaml")
    config = load_config(settings, TrainingConfig)
    assert (config.model_types, config.tuning.trials, config.tuning.seconds) == (["als"], 4, 5)
    assert settings.config_file("training.yaml").parent.name == "local"


def test_files_are_merged_key_by_key(settings: Settings) -> None:
    write(settings, "parameters: {als: {factors: 99}}\ntuning: {trials: 3}\n", "training.yaml")
    config = load_config(settings, TrainingConfig)
    shipped = load_config(Settings(REPOSITORY), TrainingConfig)
    assert config.tuning == shipped.tuning.model_copy(update={"trials": 3})
    assert config.parameters == {
        **shipped.parameters,
        "als": {**shipped.parameters["als"], "factors": 99},
    }


def test_lists_replace_and_mappings_grow(settings: Settings) -> None:
    write(settings, "labels: [c]\nprices: {brush: {amount: 5}}\n")
    config = load_config(settings, Shelf)
    assert config.labels == ("c",)
    assert config.prices == {"soap": {"amount": 3}, "brush": {"amount": 5}}


def test_a_section_that_is_left_empty_changes_nothing(settings: Settings) -> None:
    write(settings, "login:\n  # user: nobody\nprices:\n")
    assert load_config(settings, Shelf) == Shelf()
    write(settings, "email:\nalerts:\n", "alerts_config.yaml")
    assert load_alerts_config(settings, {}).config == shipped_config(AlertsConfig)


def test_a_value_that_is_left_empty_is_an_error(settings: Settings) -> None:
    assert "FILE: width: expected a whole number" in error_of(settings, "width:\n")


def test_no_file_at_all_means_the_defaults(settings: Settings) -> None:
    assert load_config(settings, Shelf) == Shelf()


def test_an_error_names_the_file_that_says_it(settings: Settings) -> None:
    own = write(settings, "gate: {max_worsening: -1}\n", "deployment.yaml")
    with pytest.raises(ConfigError, match=f"^{re.escape(str(own))}: gate.max_worsening: "):
        load_config(settings, DeploymentConfig)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("widht: hunter2", "FILE: widht: there is no such key: expected one of width,"
         " keep_days, labels, login, prices"),
        ("login: {pasword: hunter2}",
         "FILE: login.pasword: there is no such key: expected one of user, password"),
        ("login: {password: [hunter2]}", "FILE: login.password: expected text"),
        ("login: hunter2", "FILE: login: expected keys with values"),
        ("login: {user: [hunter2]}", "FILE: login.user: expected text"),
        ("login: {password: 'hunter2", "FILE: line 1: found unexpected end of stream"),
        ("login: {password: hunter2, user: [a}", "FILE: line 1: expected ',' or ']', but got '}'"),
        ("width: 0", "FILE: width: expected at least 1 (got 0)"),
        ("width: 3\nlabels: [a]\nwidth: 4",
         "FILE: line 3: the key 'width' stands there twice"),
        ("login: {password: hunter1, password: hunter2}",
         "FILE: line 1: the key 'password' stands there twice"),
        ("labels: &l [x]\nprices: {a: *l}", "FILE: line 2: expected values, not aliases"),
        ("login: &l {user: x}\nprices: {<<: *l}", "FILE: line 2: expected values, not aliases"),
        ("labels: " + "[" * 50_000, "FILE: expected at most 20 levels of nesting"),
        ("labels: " + "[" * 30 + "]" * 30, "FILE: expected at most 20 levels of nesting"),
        ("width: " + "9" * 400, "FILE: cannot be read: expected numbers up to 1e+15"),
        ("width: .inf", "FILE: cannot be read: expected numbers up to 1e+15"),
        ("keep_days: no", "FILE: keep_days: expected a number, not yes or no (got False)"),
        ("keep_days: 99999", "FILE: keep_days: expected at most a hundred years, which are 36500"
         " (got 99999)"),
        ("width: 2001-02-31", "FILE: line 1: day is out of range for month"),
        ("width: !!python/name:os.system x", "FILE: line 1: could not determine a constructor"
         " for the tag 'tag:yaml.org,2002:python/name:os.system'"),
        ("# " + "x" * 256_001, "FILE: expected at most 256000 bytes"),
        ("- a", "FILE: expected a mapping of keys to values"),
        ("3: a", "FILE: 3: expected text as the key"),
    ],
)  # fmt: skip
def test_an_error_is_a_sentence_without_secrets(settings: Settings, text: str, error: str) -> None:
    assert error_of(settings, text) == error


@pytest.mark.parametrize(
    ("model", "text", "error"),
    [
        (TrainingConfig, "parameters: {asl: {factors: 8}}",
         "parameters: unknown model type 'asl'; expected one of als, bpr, hybrid"),
        (TrainingConfig, "parameters: {als: {factor: 8}}",
         "parameters: als: unknown parameter 'factor'; expected one of factors"),
        (TrainingConfig, "parameters: {hybrid: {weights: {asl: 1}}}", "parameters: hybrid: "),
        (TrainingConfig, "model_types: [asl]", "model_types: unknown types ['asl']"),
        (TrainingConfig, "selection_metric: recal_at_10",
         "selection_metric: expected one of 'recall_at_5'"),
        (DeploymentConfig, "gate: {metric: recal_at_10}",
         "gate.metric: expected one of 'recall_at_5'"),
        (AlertsConfig, "alerts: {slow: {metric: latency, threshold: 1, severity: info}}",
         "alerts.slow.metric: expected one of 'requests', 'requests_per_minute', "
         "'avg_latency_ms', 'p95_latency_ms', 'error_rate', 'fallback_rate' (got 'latency')"),
    ],
)  # fmt: skip
def test_a_name_that_does_not_exist_is_an_error(
    settings: Settings, model: type[ConfigModel], text: str, error: str
) -> None:
    path = write(settings, text, model.FILE)
    with pytest.raises(ConfigError) as caught:
        load_any(settings, model)
    assert str(caught.value).startswith(f"{path}: {error}")


def test_rules_know_what_the_health_check_measures(settings: Settings) -> None:
    config = MetricsConfig()
    measured = judged(service_metrics(settings, config, datetime.now(UTC)), config.min_requests)
    assert set(measured) == set(get_args(Metric))


@pytest.mark.parametrize("file", RETIRED)
def test_a_key_of_an_earlier_release_is_ignored_with_a_warning(
    settings: Settings, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    (model,) = (model for model in MODELS if file == model.FILE)
    content: dict[str, Any] = {}
    for key in RETIRED[file].split():
        *sections, last = key.split(".")
        section = content
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = 3
    path = write(settings, yaml.safe_dump(content), file)
    assert load_any(settings, model) == load_any(Settings(REPOSITORY), model)
    load_any(settings, model)
    assert caplog.messages == [
        f"{path}: {key} is not a setting any more and is ignored" for key in RETIRED[file].split()
    ]
    for key in RETIRED[file].split():
        with pytest.raises(ValidationError):
            model.model_validate(nested(key.split("."), 3))


@pytest.mark.parametrize("file", sorted(path.name for path in SHIPPED_BEFORE.iterdir()))
def test_a_copy_of_the_file_that_an_earlier_release_shipped_is_still_read(
    settings: Settings, file: str
) -> None:
    """Whoever overrides a file begins with a copy of it."""
    (model,) = (model for model in MODELS if file == model.FILE)
    write(settings, (SHIPPED_BEFORE / file).read_text(encoding="utf-8"), file)
    load_any(settings, model)


def nested(parts: list[str], value: Any) -> Any:
    return {parts[0]: nested(parts[1:], value)} if parts else value


def test_an_integer_of_many_digits_is_an_error(settings: Settings) -> None:
    assert "FILE: line 1: Exceeds the limit" in error_of(settings, "width: " + "9" * 9_000)


def test_all_errors_are_reported_at_once(settings: Settings) -> None:
    assert len(error_of(settings, "width: 0\nshelf: 3\nlogin: {user: 4}\n").splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' stands there twice"),
        ('{"a": ' + "[" * 100_000, "expected at most 20 levels of nesting"),
        ('{"a": ' + "9" * 9_000 + "}", "cannot be read: "),
        ('{"a": 1', "cannot be read: "),
        ('{"a": Infinity}', "expected numbers up to 1e+15"),
        ("[]", "expected a mapping of keys to values"),
    ],
)
def test_json_is_read_with_the_same_care(tmp_path: Path, text: str, error: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"{re.escape(str(path))}: .*{re.escape(error)}"):
        read_mapping(path)


def test_bytes_that_are_no_text_and_folders_are_errors(settings: Settings) -> None:
    path = write(settings, "")
    path.write_bytes(b"width: \xff")
    with pytest.raises(ConfigError, match=f"{re.escape(str(path))}: cannot be read"):
        load_config(settings, Shelf)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match=f"{re.escape(str(path))}: cannot be read"):
        load_config(settings, Shelf)


def test_a_file_with_a_byte_order_mark_is_read(settings: Settings) -> None:
    write(settings, "\ufeffwidth: 7\n")
    assert load_config(settings, Shelf).width == 7


def test_a_login_in_an_address_is_not_shown(settings: Settings) -> None:
    path = write(settings, "url: https://shop:hunter2@store\n", "storage.yaml")
    with pytest.raises(ConfigError) as caught:
        load_config(settings, StorageConfig)
    assert str(caught.value).startswith(f"{path}: url: expected file://")
    assert "hunter2" not in str(caught.value)


def test_a_path_of_the_class_is_relative_to_any_state_root() -> None:
    assert Settings(Path("/shop")).raw == Path("/shop") / Settings.raw


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.FILE)
def test_no_sentence_is_in_the_words_of_a_program(
    settings: Settings, model: type[ConfigModel]
) -> None:
    """Whatever wrong kind of value stands at whatever key."""
    said = []
    for text in (f"{key}: {value}\n" for key in model.model_fields for value in WRONG):
        write(settings, text, model.FILE)
        try:
            load_config(settings, model)
        except ConfigError as error:
            said.append(str(error))
    assert said
    for jargon in ("Input should", " valid ", "Field required", "tuple", "instance of"):
        assert not [one for one in said if jargon in one]
