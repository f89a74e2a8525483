"""The owner script inside VyOS's daemons: imported once, called for each node, as vyos-configd and vyos-commitd do it.

The daemon here (vyos_commit.py) is our own, and does what was read of theirs: one module for all commits, one configuration
object for each commit, `argv` set in the module, standard output caught, a group and a umask of its own, and FRR rendered at
the end only if the last script of the commit ran inside the daemon.
"""

import json
import os
import pathlib
import stat
import tempfile
import time
import unittest

from vyos.config import Config

from vyos_commit import ERROR, PASS, SUCCESS, Daemon

SCRIPT = pathlib.Path(__file__).parents[2] / 'src/conf_mode/high-availability_vrrp_aws-vipa.py'

# What stands for the program: it records its calls, and answers by files beside it.
PROGRAM = '''#!/bin/sh
cd "${0%/*}" || exit
if [ "$2" = --nothing-left ]; then
    echo "$*" >>looks
    exec [ "$3" = "$(cat done 2>/dev/null)" ]
fi
cat >input
echo commit >>commits
python3 -c 'import json; print(json.load(open("input"))["commit"])' >id
[ ! -e remembers ] || cp id done
touch made
env >environment
[ ! -e answer ] || . ./answer
'''

STATIC = '''
def get_config(config=None): return config
def verify(c): pass
def generate(c): pass
def apply(c): pass
'''


class InDaemon(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        session = self.directory / 'session.json'
        tree = {'high-availability': {'vrrp': {'group': {}}}, 'interfaces': {}}
        session.write_text(json.dumps({'boot': False, 'proposed': tree, 'effective': tree}))
        os.environ['VYOS_STAND_IN'] = str(session)
        program = self.directory / 'program'
        program.write_text(PROGRAM)
        program.chmod(0o755)
        self.static = self.directory / 'protocols_static.py'
        self.static.write_text(STATIC)
        self.daemon = Daemon([self.static, SCRIPT])
        self.owner = self.daemon.modules[SCRIPT.name]
        self.owner.BINARY = str(program)

    def commit(self, *words):
        return self.daemon.commit(*((SCRIPT.name, call) for call in words))

    def lines(self, name):
        path = self.directory / name
        return path.read_text().splitlines() if path.exists() else []

    def input(self):
        return json.loads((self.directory / 'input').read_text())

    def test_static_route_and_aws_vipa_in_one_commit(self):
        nodes = [(self.static.name, []), (SCRIPT.name, ['group10'])]
        self.assertEqual([answer for answer, _ in self.daemon.commit(*nodes)], [SUCCESS, SUCCESS])
        self.assertEqual(self.daemon.rendered, 1)
        # So it is without the owner in the list.
        daemon = Daemon([self.static])
        self.assertEqual([answer for answer, _ in daemon.commit(*nodes)], [SUCCESS, PASS])
        self.assertEqual(daemon.rendered, 0)

    def test_words_as_vyos_sends_them(self):
        for words, expected in ((['group10'], ['group', '10']), (['group', '10'], ['group', '10']), (['group'], ['group']),
                                (['global-parameters'], ['global-parameters']), ([], []), (['else'], []),
                                (['group', '$VAR(../vrid/@)'], []), (['global-parameters', '7'], [])):
            self.commit(words)
            self.assertEqual(self.input()['called-for'], expected, words)

    def test_output_is_caught_whole(self):
        (self.directory / 'answer').write_text("echo 'WARNING: one'; echo 'WARNING: two'; echo noise >&2")
        self.assertEqual(self.commit(['group10']), [(SUCCESS, '\nWARNING: one\nWARNING: two\n\n')])
        (self.directory / 'answer').write_text("echo 'vyos-aws-vipa: first' >&2; echo second >&2; exit 1")
        self.assertEqual(self.commit(['group10']), [(ERROR, 'first\nsecond')])

    def test_later_calls_of_the_commit_do_nothing(self):
        (self.directory / 'remembers').touch()
        self.assertEqual(self.commit(*(['group', str(number)] for number in range(1, 200))), [(SUCCESS, '')] * 199)
        self.assertEqual((len(self.lines('commits')), len(self.lines('looks'))), (1, 199))
        # Another commit is another one, also in the same daemon.
        self.commit(['group', '1'])
        self.assertEqual(len(self.lines('commits')), 2)

    def test_no_state_is_kept_between_calls(self):
        before = {name: repr(value) for name, value in vars(self.owner).items() if not name.startswith('__') and name != 'argv'}
        first = self.commit(['group', '1']), self.input()['commit']
        second = self.commit(['group', '1']), self.input()['commit']
        after = {name: repr(value) for name, value in vars(self.owner).items() if not name.startswith('__') and name != 'argv'}
        self.assertEqual(before, after)
        self.assertNotEqual(first[1], second[1])

    def test_a_configuration_object_that_takes_no_attribute_has_full_calls(self):
        class Closed:
            __slots__ = ()
            get_config_dict = Config.get_config_dict
            _trees = Config()._trees

        self.owner.argv = ['x', 'group', '1']
        self.assertIsNone(self.owner.get_config(Closed())['commit'])

    def test_a_program_that_hangs_is_bounded(self):
        self.owner.TIMEOUT, self.owner.LOOK = 1, 0.5
        (self.directory / 'program').write_text('#!/bin/sh\nexec sleep 60\n')
        began = time.monotonic()
        (answer, out), = self.commit(['group', '1'])
        self.assertEqual(answer, ERROR)
        self.assertIn('did not end within', out)
        self.assertLess(time.monotonic() - began, 20)

    @unittest.skipUnless(os.geteuid() == 0, 'only root can have the group of the daemon')
    def test_files_are_as_sudo_makes_them(self):
        pid = os.fork()
        if pid == 0:
            os.setgid(34)
            os.umask(0o077)
            os.environ['VYATTA_CHANGES_ONLY_DIR'] = '/x'
            os._exit(0 if self.commit(['group', '1']) == [(SUCCESS, '')] else 1)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        made = (self.directory / 'made').stat()
        self.assertEqual((made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)), (0, 0, 0o644))
        names = {line.split('=')[0] for line in self.lines('environment')}
        self.assertEqual(names - {'PWD', 'OLDPWD', 'SHLVL', '_'}, {'PATH'})


if __name__ == '__main__':
    unittest.main()
