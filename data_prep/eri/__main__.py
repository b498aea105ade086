from data_prep.eri.run import main
from swift_plugins.files import run_cli

run_cli(main)
