"""Secrets and the environment of the stack."""

import json

import pytest
from cryptography.fernet import Fernet

from recsys.config import ConfigError
from recsys.orchestration.environment import (
    GENERATED,
    connect,
    ensure_env,
    read_env,
    stack_environment,
    write_passwords,
    write_pools,
)


@pytest.fixture(autouse=True)
def _no_inherited_settings(monkeypatch):
    for name in (*GENERATED, "AIRFLOW_PORT", "RECSYS_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)


def test_the_first_start_generates_every_secret_into_a_private_file(settings):
    settings.home.mkdir()
    env = ensure_env(settings)
    assert all(len(env[name]) >= 16 for name in GENERATED)
    assert len(env["AIRFLOW__API_AUTH__JWT_SECRET"]) >= 64
    Fernet(env["AIRFLOW__CORE__FERNET_KEY"])
    assert (settings.home / ".env").stat().st_mode & 0o777 == 0o600


def test_secrets_stay_and_emptied_ones_are_generated_anew(settings):
    settings.home.mkdir()
    first = ensure_env(settings)
    assert ensure_env(settings) == first
    path = settings.home / ".env"
    path.write_text(path.read_text().replace(first["RECSYS_ADMIN_TOKEN"], ""))
    second = ensure_env(settings)
    assert second["RECSYS_ADMIN_TOKEN"] not in ("", first["RECSYS_ADMIN_TOKEN"])
    assert second["AIRFLOW__CORE__FERNET_KEY"] == first["AIRFLOW__CORE__FERNET_KEY"]


def test_what_a_person_put_into_the_file_is_kept(settings):
    settings.home.mkdir()
    (settings.home / ".env").write_text("SMTP_SERVER=smtp.example.com\n")
    assert ensure_env(settings)["SMTP_SERVER"] == "smtp.example.com"


def test_the_process_environment_wins_over_the_file(settings, monkeypatch):
    settings.home.mkdir()
    ensure_env(settings)
    monkeypatch.setenv("AIRFLOW_PORT", "9999")
    assert read_env(settings)["AIRFLOW_PORT"] == "9999"
    assert stack_environment(settings)["AIRFLOW__API__PORT"] == "9999"


def test_everything_listens_on_loopback_and_tasks_know_the_port(settings):
    settings.home.mkdir()
    ensure_env(settings)
    env = stack_environment(settings)
    assert env["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert env["RECSYS_SERVICE_HOST"] == "127.0.0.1"
    port = env["RECSYS_EXECUTION_PORT"]
    assert env["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == f"http://127.0.0.1:{port}/execution/"


@pytest.mark.parametrize("port", ["http", "0", "70000", "-1"])
def test_a_bad_port_is_an_error_that_names_it(settings, port):
    settings.home.mkdir()
    (settings.home / ".env").write_text(f"AIRFLOW_PORT={port}\n")
    ensure_env(settings)
    with pytest.raises(ConfigError, match=f"AIRFLOW_PORT='{port}'"):
        stack_environment(settings)


def test_without_secrets_nothing_starts(settings):
    settings.home.mkdir()
    (settings.home / ".env").write_text("SMTP_SERVER=smtp.example.com\n")
    with pytest.raises(ConfigError, match="no value for"):
        stack_environment(settings)


def test_airflows_password_file_is_private(settings):
    settings.home.mkdir()
    ensure_env(settings)
    write_passwords(settings)
    assert (settings.home / ".airflow" / "passwords.json").stat().st_mode & 0o777 == 0o600


def test_a_value_is_taken_as_it_stands(settings):
    settings.home.mkdir()
    (settings.home / ".env").write_text("ALERT_EMAIL_PASSWORD=a${HOME}b$c\nSMTP_SERVER='x ${y}'\n")
    env = ensure_env(settings)
    assert env["ALERT_EMAIL_PASSWORD"] == "a${HOME}b$c"
    assert env["SMTP_SERVER"] == "x ${y}"


def test_a_variable_that_is_missing_from_the_file_has_its_default(settings, monkeypatch):
    monkeypatch.delenv("RECSYS_AIRFLOW_USER", raising=False)
    settings.home.mkdir()
    (settings.home / ".env").write_text("AIRFLOW_PORT=8080\n")
    ensure_env(settings)
    env = stack_environment(settings)
    assert env["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"] == "admin:admin"
    write_passwords(settings)


def test_before_the_first_start_that_is_said(settings):
    settings.home.mkdir()
    with pytest.raises(ConfigError, match="nothing is set up here yet; run `make up` first"):
        stack_environment(settings)


def test_an_unreadable_file_is_named(settings):
    settings.home.mkdir()
    (settings.home / ".env").write_bytes(b"SMTP_SERVER=\xff\xfe\n")
    with pytest.raises(ConfigError, match=r"\.env: cannot be read"):
        read_env(settings)


def test_a_job_of_ones_own_adds_its_pool_to_the_shipped_ones(settings, tmp_path):
    folder = settings.home / "config"
    folder.mkdir(parents=True)
    (folder / "pools.json").write_text('{"stock_report": {"slots": 1, "description": "x"}}')
    write_pools(settings, tmp_path / "pools.json")
    pools = json.loads((tmp_path / "pools.json").read_text())
    assert {"stock_report", "data_refresh", "health_probes"} <= set(pools)


def test_in_a_cluster_links_lead_to_where_people_find_the_ui(settings, monkeypatch):
    for name, value in (("URL", "http://api-server:8080"), ("USER", "admin"), ("PASSWORD", "x")):
        monkeypatch.setenv(f"RECSYS_AIRFLOW_{name}", value)
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.com/")
    client = connect(settings)
    assert client.url == "http://api-server:8080"
    page = "https://airflow.example.com/dags/data_refresh/runs/manual__1%2B2"
    assert client.run_url("data_refresh", "manual__1+2") == page
