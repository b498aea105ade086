import swift_plugins  # noqa: F401  says what is not installed
