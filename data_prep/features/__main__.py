import sys

from data_prep.features import encoders, tower
from swift_plugins.files import run_cli

run_cli(encoders.main if any(word.split("=")[0] == "--encoder" for word in sys.argv[1:]) else tower.main)
