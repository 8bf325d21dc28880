import base64

import pytest

from recsys.alerting.masking import SecretMasker
from tests.sinks import log_lines


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://airflow:s3cret@db/airflow", "postgresql://***@db/airflow"),
        ("POST https://hooks.slack.com/services/T0/B0/xyz refused",
         "POST https://hooks.slack.com/*** refused"),
        ("Authorization: Bearer abcdef123456", "Authorization: Bearer ***"),
        ("connect(host=x, password='a b', user=u)", "connect(host=x, password=***, user=u)"),
        ("GET /x?api_key=abc123&page=2", "GET /x?api_key=***&page=2"),
        ('{"token": "abc", "page": 2}', '{"token": ***, "page": 2}'),
        ("{'db_pwd': 'abc'}", "{'db_pwd': ***}"),
        ("SMTP_PASSWORD: hunter2, next", "SMTP_PASSWORD: ***, next"),
        ("password authentication failed for user", "password authentication failed for user"),
        ("http://localhost:8080/dags/a@b", "http://localhost:8080/dags/a@b"),
        ("postgresql://u:p@ss/w?r#d@db:5432/airflow", "postgresql://***@db:5432/airflow"),
        ("redis://:s3cret@queue:6379/0", "redis://***@queue:6379/0"),
        ("Authorization: Token 0a1b2c3d", "Authorization: Token ***"),
        ("'Authorization': 'ApiKey abc'", "'Authorization': 'ApiKey ***'"),
        ("sent Token 9944b09199c62bcf9418ad846dd0e4bb", "sent Token ***"),
        ("the admin token belongs to Airflow", "the admin token belongs to Airflow"),
        ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl expired", "token *** expired"),
        ("got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "got ***"),
        ("The key AKIAIOSFODNN7EXAMPLE is not known", "The key *** is not known"),
        ("aws_access_key_id=ASIAIOSFODNN7EXAMPLE", "aws_access_key_id=***"),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
         "aws_secret_access_key = ***"),
        ("SecretAccessKey: 'wJalr/K7'", "SecretAccessKey: ***"),
        ('{"private_key": "-----BEGIN PRIVATE KEY-----\\nMIIE\\n-----END PRIVATE KEY-----\\n"}',
         '{"private_key": ***}'),
        ("key:\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\nx==\n-----END RSA PRIVATE KEY-----\nend",
         "key:\n***\nend"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNz cut off", "***"),
        ("GET /x?X-Amz-Signature=ab12&X-Amz-Date=1", "GET /x?X-Amz-Signature=***&X-Amz-Date=1"),
        ("primary_key=user_id, foreign_key: item", "primary_key=user_id, foreign_key: item"),
    ],
)  # fmt: skip
def test_what_looks_like_a_secret_is_masked(text, masked):
    assert SecretMasker([]).mask(text) == masked


@pytest.mark.parametrize("spell", [str, repr, lambda s: base64.b64encode(s.encode()).decode()])
def test_known_secrets_are_masked_in_every_spelling(spell):
    secret = "Mật khẩu/1+1'x\\y"
    text = SecretMasker([secret]).mask(f"login failed: {spell(secret)}!")
    assert "***" in text
    assert secret not in text
    assert spell(secret).strip("'\"") not in text


def test_short_secrets_do_not_eat_the_text():
    assert SecretMasker(["a", ""]).mask("a banana") == "a banana"


def test_no_channel_shows_a_secret_of_the_environment(
    manager, settings, mails, slack, configure, monkeypatch
):
    from recsys.alerting import AlertManager

    monkeypatch.setenv("RECSYS_ADMIN_TOKEN", "very-secret-token")
    configure(password="pass-word-123")
    AlertManager(settings).send_alert(
        "pass-word-123", "very-secret-token", "critical", context={"error": "pass-word-123"}
    )
    everything = "\n".join(log_lines(settings)) + str(slack.posts) + mails.mails[0].as_string()
    body = mails.mails[0].get_body().get_content()
    for secret in ("very-secret-token", "pass-word-123"):
        assert secret not in everything + body
    assert "***" in body
