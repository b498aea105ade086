from data_prep.fer.run import main
from swift_plugins.files import run_cli

run_cli(main)
