"""The owner script beside a program that is missing, hangs, crashes or says rubbish."""

import contextlib
import importlib.util
import io
import os
import pathlib
import stat
import tempfile
import time
import unittest

SCRIPT = pathlib.Path(__file__).parents[2] / 'src/conf_mode/high-availability_vrrp_aws-vipa.py'
CONFIG = {'format': 1, 'boot': False, 'proposed': {}, 'effective': {}, 'interface-addresses': {}}


def load():
    spec = importlib.util.spec_from_file_location('owner', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Failures(unittest.TestCase):
    def setUp(self):
        self.owner = load()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.program = os.path.join(directory.name, 'program')
        self.owner.BINARY = self.program

    def write(self, text):
        with open(self.program, 'w') as file:
            file.write(f'#!/bin/sh\n{text}\n')
        os.chmod(self.program, stat.S_IRWXU)

    def refused(self):
        with self.assertRaises(self.owner.ConfigError) as caught:
            self.owner.apply(CONFIG)
        # At boot the same is a warning, and drops no node.
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            self.owner.apply(CONFIG | {'boot': True})
        text = ' '.join(str(caught.exception).split())
        self.assertEqual(' '.join(shown.getvalue().split()), f'WARNING: {text}')
        return text

    def test_missing(self):
        self.assertEqual(self.refused(), f'cannot run {self.program}: No such file or directory; '
                                         'install the package vyos-aws-vipa again')

    def test_not_executable(self):
        self.write('exit 0')
        os.chmod(self.program, 0)
        self.assertIn('Permission denied', self.refused())

    def test_hangs(self):
        self.owner.TIMEOUT = 0.2
        self.write('exec sleep 60')
        began = time.monotonic()
        self.assertIn('did not end within 0.2 seconds and was stopped: see "systemctl list-jobs" and "show log vrrp"',
                      self.refused())
        self.assertLess(time.monotonic() - began, 30)

    def test_killed(self):
        self.write('kill -9 $$')
        self.assertIn('commit ended with -9 without an error message: see "sudo journalctl -b"', self.refused())

    def test_fails_without_a_word(self):
        self.write('exit 3')
        self.assertIn('commit ended with 3 without an error message', self.refused())

    def test_bytes_that_are_no_text(self):
        self.write(r"printf 'vyos-aws-vipa: \377 is wrong\n' >&2; exit 1")
        self.assertEqual(self.refused(), r'\xff is wrong')

    def test_reads_nothing(self):
        self.write("exec 0<&-; echo 'vyos-aws-vipa: no' >&2; exit 1")
        huge = CONFIG | {'interface-addresses': {'eth0': ['192.0.2.1/24'] * 100_000}}
        with self.assertRaisesRegex(self.owner.ConfigError, '^no$'):
            self.owner.apply(huge)

    def test_warnings(self):
        self.write("echo 'WARNING: one'; echo 'WARNING: two'")
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            self.owner.apply(CONFIG)
        self.assertEqual(shown.getvalue(), '\nWARNING: one\nWARNING: two\n\n')

    def test_faults_at_boot(self):
        self.write("echo 'vyos-aws-vipa: one' >&2; echo two >&2; exit 1")
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            self.owner.apply(CONFIG | {'boot': True})
        self.assertEqual(shown.getvalue(), '\nWARNING: one\nWARNING: two\n\n')


if __name__ == '__main__':
    unittest.main()
