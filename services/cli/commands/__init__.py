"""One module or package for each command, or group of commands; `joblog.services.cli.app` names them."""
