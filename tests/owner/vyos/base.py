"""Messages, formatted as vyos-1x does it (python/vyos/base.py): so that what a test sees is what an operator sees."""

from textwrap import fill


class Warning:
    def __init__(self, message, **kwargs):
        print('')
        for number, line in enumerate(message.split('\n')):
            print(fill(line, initial_indent='' if number else 'WARNING: ', **kwargs))
        print('')


class ConfigError(Exception):
    def __init__(self, message):
        super().__init__(fill(message, width=72))
