"""Every file of settings, read before something starts with it."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import typer

from recsys.alerting.config import load_alerts_config
from recsys.cli.output import AsJson, console, print_json, use_stack_variables
from recsys.cli.tables import print_table
from recsys.config import ConfigError, ConfigModel, load_config, unknown_files
from recsys.data.config import DataConfig
from recsys.data.sources import (
    SourceError,
    known_sources,
    load_event_source,
    load_source,
    source_name,
)
from recsys.deployment import DeploymentConfig
from recsys.errors import InputError
from recsys.health import pipelines
from recsys.merchandising.placements import PlacementsConfig
from recsys.merchandising.rules import RulesConfig
from recsys.orchestration.environment import load_pools
from recsys.privacy import PrivacyConfig
from recsys.schedule import load_schedule
from recsys.settings import REPOSITORY, Settings, load_settings
from recsys.upkeep import MaintenanceConfig

app = typer.Typer()
config_app = typer.Typer(no_args_is_help=True, help="Look at the settings.")
app.add_typer(config_app, name="config", rich_help_panel="Stack")


@config_app.command()
def check(
    as_json: AsJson = False,
) -> None:
    """Read every file of settings; 2 if one cannot be used or has a name that nobody reads."""
    settings = load_settings()
    own, problems = _own_files(settings), settings_problems(settings)
    if as_json:
        print_json({"own_files": [str(path) for path in own], "problems": problems})
    elif own:
        home = settings.home
        rows = [(path.relative_to(home), _verdict(path, problems)) for path in own]
        title = f"Settings of this shop, over the shipped ones, in {home}"
        print_table(title, ("file", "verdict"), rows)
    else:
        said = f"No settings of this shop's own; they belong in {settings.config}"
        console.print(said, markup=False, soft_wrap=True)
    if problems:
        raise InputError("\n".join(problems))


def settings_problems(settings: Settings) -> list[str]:
    """A sentence for each file of settings that cannot be used, or that nobody reads."""
    try:
        problems = list(load_schedule(settings).problems.values())
    except ConfigError as error:
        problems = [str(error)]
    problems += unknown_files(settings)
    upper: tuple[type[ConfigModel], ...] = (MaintenanceConfig, PrivacyConfig, RulesConfig)
    problems += pipelines.settings_problems(settings, *upper, PlacementsConfig)
    problems += _of_the_service(settings)
    use_stack_variables(settings)
    readers: list[Callable[[], object]] = [
        lambda: load_alerts_config(settings, os.environ),
        lambda: load_pools(settings),
        *(lambda name=name: load_source(settings, name) for name in known_sources(settings)),
    ]
    for read in readers:
        try:
            read()
        except InputError as error:
            problems.append(str(error))
    problems += _of_named_sources(settings)
    problems += _of_the_canary(settings)
    return list(dict.fromkeys(problems))


def _of_named_sources(settings: Settings) -> list[str]:
    """What is wrong with the sources that ``data.yaml`` names, or that was selected since."""
    try:
        named = load_config(settings, DataConfig)
        selected = source_name(settings)
    except InputError as error:
        return [str(error)]
    path, problems = settings.config_file(DataConfig.FILE), []
    readers: list[tuple[str, Callable[[], object]]] = [
        *((f"{path}: events: ", partial(load_event_source, settings, one)) for one in named.events),
        (f"{path}: source: ", partial(load_source, settings, named.source)),
    ]
    if selected != named.source:
        readers.append(("", partial(load_source, settings, selected)))
    for where, read in readers:
        try:
            read()
        except ConfigError as error:  # a description of its own file
            problems.append(str(error))
        except SourceError as error:  # no such description
            problems.append(f"{where}{error}")
    return problems


def _of_the_canary(settings: Settings) -> list[str]:
    """A trial that the job's timeout cuts off ends no deployment."""
    try:
        config = load_config(settings, DeploymentConfig)
        timeout = load_schedule(settings).job("model_deployment").timeout
    except ConfigError:
        return []  # which is told already
    around = timedelta(seconds=config.reload_timeout_seconds + config.patience_seconds)
    left = (timeout - config.time_to_answer - around) / timedelta(minutes=1)
    canary = config.canary
    if not canary.enabled or canary.minutes <= left:
        return []
    path = settings.config_file(DeploymentConfig.FILE)
    said = f"expected at most {left:g}, which the timeout of model_deployment leaves"
    return [f"{path}: canary.minutes: {said}, not {canary.minutes:g}"]


def _of_the_service(settings: Settings) -> list[str]:
    """What is wrong with the settings that the service alone reads: nothing here imports it."""
    if not (REPOSITORY / "serving").is_dir():
        return []  # an image of jobs alone
    paths = os.pathsep.join([str(REPOSITORY / "include"), str(REPOSITORY)])
    done = subprocess.run(
        [sys.executable, "-m", "serving", "--check"],
        env={**os.environ, "PYTHONPATH": paths, "RECSYS_HOME": str(settings.home)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr.strip().splitlines() if done.returncode else []


def _own_files(settings: Settings) -> list[Path]:
    """The files of the state root, the repository's left out."""
    kinds = (".yaml", ".yml", ".json")
    folders = [one for one in settings.config_folders if one != REPOSITORY / "config"]
    files = (path for folder in folders for path in folder.rglob("*.*"))
    return sorted({path for path in files if path.suffix in kinds})


def _verdict(path: Path, problems: list[str]) -> str:
    return "cannot be used" if any(str(path) in one for one in problems) else "sound"
