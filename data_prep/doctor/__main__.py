from data_prep.doctor.checks import main
from swift_plugins.files import run_cli

run_cli(main)
