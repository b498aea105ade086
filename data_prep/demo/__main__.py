from data_prep.demo.world import main
from swift_plugins.files import run_cli

run_cli(main)
