"""Experiments as TOML files: values only. Read one with `importlib.resources.files("swannery.configs")`."""
