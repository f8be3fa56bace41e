"""`spillway`: the command line, composed of the modules in commands/.

The commands import heavy modules themselves, so that `--help` and `keys` stay quick.
"""

from __future__ import annotations

import json

import typer

from spillway_router.commands.calibrate import calibrate
from spillway_router.commands.chat import chat
from spillway_router.commands.check import check
from spillway_router.commands.deploy import deploy
from spillway_router.commands.explain import explain
from spillway_router.commands.extract import extract
from spillway_router.commands.keys import keys_app
from spillway_router.commands.ledger import ledger_app
from spillway_router.commands.pod import pod_app
from spillway_router.commands.prices import prices_app
from spillway_router.commands.rentals import rentals_app
from spillway_router.commands.report import report_app
from spillway_router.commands.reviews import reviews_app
from spillway_router.commands.run import route, up
from spillway_router.config.settings import Settings
from spillway_server import cli as server_cli

app = typer.Typer(no_args_is_help=True, add_completion=False, help="A rented GPU first, the cloud when it spills over.")
for command in (route, up, check, chat, explain, extract, deploy, calibrate):
    app.command()(command)
app.add_typer(keys_app, name="keys")
app.add_typer(ledger_app, name="ledger")
app.add_typer(prices_app, name="prices")
app.add_typer(report_app, name="report")
app.add_typer(rentals_app, name="rentals")
app.add_typer(pod_app, name="pod")
app.add_typer(reviews_app, name="reviews")
server_cli.register(app)


@app.command()
def schema() -> None:
    """Print the JSON schema of spillway.yaml, for editors."""
    typer.echo(json.dumps(Settings.model_json_schema(), indent=2))
