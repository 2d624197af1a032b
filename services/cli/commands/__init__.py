"""One module for each command, or group of commands; `joblog.services.cli.app` names them."""
