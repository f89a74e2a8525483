"""Stand-in for the few names of VyOS's Python library that the owner script takes from it."""

from .base import ConfigError
