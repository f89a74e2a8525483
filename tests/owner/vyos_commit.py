"""A commit of VyOS as the owner script meets it: a process that holds the commit lock and runs the owner of one node after
the other (vyatta-cfg src/commit/commit-algorithm.cpp), or a daemon that has imported the script (vyos-1x
src/services/vyos-configd).

The arguments are `process` or `daemon`, and the script. A line of standard input is `null`, which begins a commit, or a JSON
list: the words that VyOS puts behind the owner of a node. Each is answered by a line, for a call what it came to. A process
has one commit, and a daemon any number.
"""

import contextlib
import fcntl
import importlib.util
import io
import json
import os
import pathlib
import subprocess
import sys
import time
import traceback

LOCK = pathlib.Path('/opt/vyatta/config/.lock')
MARKER = pathlib.Path('/var/tmp/in_commit')

SUCCESS, ERROR, PASS = 1, 2, 8


class Process:
    def __init__(self, script):
        self.script = script

    def begin(self):
        # Until this process ends.
        self.lock = open(LOCK, 'w')
        fcntl.lockf(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        MARKER.touch(exist_ok=False)
        return {}

    def call(self, words):
        began = time.monotonic()
        # As in node.def, without sudo and vyshim.
        done = subprocess.run(['sh', '-c', ' '.join([str(self.script), *words])], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True)
        seconds = time.monotonic() - began
        return {'code': done.returncode, 'out': done.stdout, 'err': done.stderr, 'seconds': seconds}

    def end(self):
        MARKER.unlink()


class Daemon:
    def __init__(self, include):
        self.modules = {}
        self.rendered = 0
        for path in include:
            spec = importlib.util.spec_from_file_location(path.stem.replace('-', '_'), path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            self.modules[path.name] = module

    def commit(self, *nodes):
        """Each node is a script and its words. Returns the answers and the output of each."""
        from vyos.config import Config

        config, answers = Config(), []
        for name, words in nodes:
            answer, out = PASS, ''
            if name in self.modules:
                answer, out = self.call(self.modules[name], config, [name, *words])
            answers.append((answer, out))
        if answer == SUCCESS:
            self.rendered += 1
        return answers

    @staticmethod
    def call(script, config, words):
        from vyos.base import ConfigError

        script.argv = words
        answer, error = SUCCESS, ''
        with contextlib.redirect_stdout(io.StringIO()) as caught:
            try:
                c = script.get_config(config)
                script.verify(c)
                script.generate(c)
                script.apply(c)
            except ConfigError as e:
                answer, error = ERROR, str(e)
            except Exception:
                answer, error = ERROR, traceback.format_exc()
        return answer, caught.getvalue() + error


class InDaemon:
    def __init__(self, script):
        self.name = script.name
        self.daemon = Daemon([script])

    def begin(self):
        self.config = None
        return {}

    def call(self, words):
        from vyos.config import Config

        # The daemon makes it at the beginning of a commit, whatever the commit changes.
        self.config = self.config or Config()
        began = time.monotonic()
        answer, out = Daemon.call(self.daemon.modules[self.name], self.config, [self.name, *words])
        return {'code': int(answer != SUCCESS), 'out': out, 'err': '', 'seconds': time.monotonic() - began}

    def end(self):
        pass


def main():
    kind = {'process': Process, 'daemon': InDaemon}[sys.argv[1]]
    commit = kind(pathlib.Path(sys.argv[2]))
    for line in sys.stdin:
        words = json.loads(line)
        print(json.dumps(commit.begin() if words is None else commit.call(words)), flush=True)
    commit.end()


if __name__ == '__main__':
    main()
