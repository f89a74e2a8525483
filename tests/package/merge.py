"""debian/merge-into-vyos, against samples of VyOS's files in a root of their own.

The samples are made here, in the shapes that vyos-1x is described to have: nothing in them is VyOS's.
"""

import copy
import json
import os
import pathlib
import runpy
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import unittest

PROJECT = pathlib.Path(__file__).parents[2]
PROGRAM = PROJECT / 'debian/merge-into-vyos'
OWNER = 'high-availability_vrrp_aws-vipa.py'

# VyOS's generator writes a name a line; another writer may put all on one.
INCLUDES = ['[\n"a.py",\n"high-availability.py",\n"z.py"\n]\n', '["a.py", "z.py"]', '[\n  "a.py"\n]']


def command(name, node_type, children, **below):
    data = {'name': name, 'node_type': node_type, 'help_text': f'The command {name}', 'command': None,
            'path': [name], 'files': ['sample.xml'], 'children': children}
    return {'__node_data': data, **below}


# The children of a command are names, or pairs of name and type.
OP_CACHES = [
    {'show': command('show', 'node', ['arp'], arp=command('arp', 'node', []))},
    {'show': command('show', 'node', [['arp', 'node']], arp=command('arp', 'node', [])), 'force': command('force', 'node', [['arp', 'node']])},
]
OWN_COMMANDS = {
    verb: {**command(verb, 'node', ['aws-vipa']), 'aws-vipa': command('aws-vipa', 'node', [])} for verb in ('force', 'show', 'strange')
}
for entry in OWN_COMMANDS.values():
    entry['__node_data']['files'] = ['aws-vipa.xml']


def node(name, *children, **data):
    return {'name': name, 'data': data, 'children': list(children)}


TREE = node('', node('high-availability', node('vrrp', node('group', node('vrid', kind='leaf'), kind='tag', help='ü'),
                                               node('global-parameters', node('version', kind='leaf')))),
            node('system', node('host-name', kind='leaf'), node('aws-vipa', kind='of another')), kind='root')

# What VyOS's library does, as far as it is described, with the same signatures.
LIBRARY = '''
import json, os
import xml.etree.ElementTree as ET


class ConfigTreeError(Exception):
    pass


def interface_definitions_to_cache(from_dir, cache_path, libpath=None):
    def of(element):
        children = element.find('children')
        return {'name': element.get('name', ''), 'data': {'owner': element.get('owner')},
                'children': [of(child) for child in (children if children is not None else [])]}

    root = {'name': '', 'data': {}, 'children': []}
    for name in os.listdir(from_dir):
        root['children'] += [of(child) for child in ET.parse(os.path.join(from_dir, name)).getroot()]
    with open(cache_path, 'w') as file:
        json.dump(root, file)


def union(into, other):
    for child in other['children']:
        for present in into['children']:
            if present['name'] == child['name']:
                union(present, child)
                break
        else:
            into['children'].append(child)
    into['children'].sort(key=lambda child: child['name'])


def merge_reference_tree_cache(cache_dir, primary_name, result_name, libpath=None):
    trees = {}
    for name in os.listdir(cache_dir):
        with open(os.path.join(cache_dir, name)) as file:
            trees[name] = json.load(file)
    primary = trees.pop(primary_name)
    for other in trees.values():
        union(primary, other)
    with open(os.path.join(cache_dir, result_name), 'w') as file:
        json.dump(primary, file)
'''


def write_samples(number):
    """Into this directory, what tests/package/run makes a newer vyos-1x of."""
    here = pathlib.Path()
    (here / 'configd-include.json').write_text(INCLUDES[number])
    (here / 'op_cache.json').write_text(json.dumps(OP_CACHES[number]))
    (here / 'reftree.cache').write_text(json.dumps(TREE))
    (here / 'configtree.py').write_text(LIBRARY)
    (here / 'frrender.py').touch()


def nodes(entry, above=()):
    """Our nodes at any depth, by their path."""
    for word, below in entry.items():
        if word == 'aws-vipa':
            yield (*above, word), below
        elif word != '__node_data':
            yield from nodes(below, (*above, word))


class Merge(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = pathlib.Path(directory.name)
        self.vyos = self.root / 'usr/share/vyos'
        self.own = self.root / 'usr/share/vyos-aws-vipa'
        self.library = self.root / 'usr/lib/python3/dist-packages/vyos'
        self.include = self.vyos / 'configd-include.json'
        self.op_cache = self.vyos / 'op_cache.json'
        self.reference_tree = self.vyos / 'reftree.cache'
        self.pristine = self.root / 'var/lib/vyos-aws-vipa-merge'
        for directory in (self.vyos, self.own, self.library, self.root / 'usr/libexec/vyos/conf_mode', self.root / 'var/lib'):
            directory.mkdir(parents=True)
        shutil.copytree(PROJECT / 'tests/owner/vyos', self.library, dirs_exist_ok=True,
                        ignore=shutil.ignore_patterns('__pycache__'))
        shutil.copytree(PROJECT / 'interface-definitions', self.own / 'interface-definitions',
                        ignore=shutil.ignore_patterns('op-mode'))
        self.owner = self.root / 'usr/libexec/vyos/conf_mode' / OWNER
        shutil.copy(PROJECT / 'src/conf_mode' / OWNER, self.owner)
        (self.library / 'frrender.py').touch()
        (self.library / 'configtree.py').write_text(LIBRARY)
        (self.own / 'op_cache.json').write_text(json.dumps(OWN_COMMANDS))
        self.include.write_text(INCLUDES[0])
        self.op_cache.write_text(json.dumps(OP_CACHES[0]))
        self.reference_tree.write_text(json.dumps(TREE))
        self.files = [self.include, self.op_cache, self.reference_tree]

    def run_program(self, what, *prefix):
        return subprocess.run([*(prefix or [sys.executable, '-B', PROGRAM]), what], env={'DPKG_ROOT': str(self.root)},
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)

    def merge(self, what, *warnings):
        done = self.run_program(what)
        self.assertEqual((done.returncode, done.stdout), (0, ''), done.stderr)
        lines = done.stderr.splitlines()
        self.assertEqual(len(lines), len(warnings), done.stderr)
        for line, warning in zip(lines, warnings):
            self.assertTrue(line.startswith('vyos-aws-vipa: WARNING: '), line)
            self.assertIn(warning, line)

    def contents(self):
        return [file.read_bytes() if file.exists() else None for file in self.files]

    def leftovers(self):
        return [path for path in self.vyos.iterdir() if path not in self.files]

    def own_nodes(self):
        tree = json.loads(self.reference_tree.read_text())
        found = {}
        for top in tree['children']:
            if top['name'] == 'high-availability':
                for parent in top['children'][0]['children']:
                    found[parent['name']] = [n['name'] for n in parent['children'] if n['name'] == 'aws-vipa']
        return found

    def assert_merged(self):
        self.assertEqual(json.loads(self.include.read_text()).count(OWNER), 1)
        commands = json.loads(self.op_cache.read_text())
        for verb in OWN_COMMANDS:
            self.assertEqual(commands[verb]['aws-vipa'], OWN_COMMANDS[verb]['aws-vipa'])
            names = [c[0] if isinstance(c, list) else c for c in commands[verb]['__node_data']['children']]
            self.assertEqual(names.count('aws-vipa'), 1)
        self.assertEqual(self.own_nodes(), {'global-parameters': ['aws-vipa'], 'group': ['aws-vipa']})

    def test_there_and_back_leaves_every_byte(self):
        for include in INCLUDES:
            for op_cache in OP_CACHES:
                for style in ({}, {'indent': 2}, {'separators': (',', ':')}, {'ensure_ascii': False}):
                    with self.subTest(include=include, style=style):
                        self.include.write_text(include)
                        self.op_cache.write_text(json.dumps(op_cache, **style))
                        self.reference_tree.write_text(json.dumps(TREE, **style))
                        before = self.contents()
                        self.merge('add')
                        self.assert_merged()
                        self.merge('remove')
                        self.assertEqual(self.contents(), before)
                        self.assertEqual((self.leftovers(), self.pristine.exists()), ([], False))

    def test_the_commands_of_the_package(self):
        """Some are below a word of VyOS that is below another one, which a VyOS may have or not."""
        shutil.copy(PROJECT / 'vyos-templates/op_cache.json', self.own)
        own = dict(nodes(json.loads((self.own / 'op_cache.json').read_text())))
        self.assertIn(('show', 'log', 'aws-vipa'), own)
        with_log = {'show': command('show', 'node', ['log'], log=command('log', 'node', ['vpn'], vpn=command('vpn', 'node', [])))}
        for op_cache in (*OP_CACHES, with_log):
            with self.subTest(op_cache=op_cache):
                self.op_cache.write_text(json.dumps(op_cache))
                self.merge('add')
                self.assertEqual(dict(nodes(json.loads(self.op_cache.read_text()))), own)
                self.merge('add')
                self.merge('remove')
                self.assertEqual(json.loads(self.op_cache.read_text()), op_cache)

    def test_a_deep_file_costs_no_other_one(self):
        for depth in (100, 300, 900, 990, 5000):
            with self.subTest(depth=depth):
                text = '{"a": {"__node_data": {}, ' * depth + '"b": {"__node_data": {}}' + '}}' * depth
                self.op_cache.write_text(text)
                done = self.run_program('add')
                self.assertEqual(done.returncode, 0, done.stderr[-500:])
                self.assertNotIn('Traceback', done.stderr)
                self.assertEqual(json.loads(self.include.read_text()).count(OWNER), 1)
                self.assertEqual(self.own_nodes(), {'global-parameters': ['aws-vipa'], 'group': ['aws-vipa']})
                self.assertEqual('op_cache.json is left as it is' in done.stderr, self.op_cache.read_text() == text)
                self.assertEqual(self.run_program('remove').returncode, 0)

    def test_twice_changes_nothing(self):
        self.merge('add')
        before = self.contents(), [file.stat().st_ino for file in self.files]
        self.merge('add')
        self.assertEqual((self.contents(), [file.stat().st_ino for file in self.files]), before)
        self.merge('remove')
        before = self.contents()
        self.merge('remove')
        self.assertEqual(self.contents(), before)

    def test_1_4_is_left_alone(self):
        (self.library / 'frrender.py').unlink()
        (self.library / 'configtree.py').write_text('class ConfigTree: pass\n')
        self.op_cache.unlink()
        before = self.contents()
        self.merge('add')
        self.assertEqual(self.contents(), before)

    def test_vyos_commitd_alone_needs_the_owner_in_the_list(self):
        (self.library / 'frrender.py').unlink()
        services = self.root / 'usr/libexec/vyos/services'
        services.mkdir()
        (services / 'vyos-commitd').touch()
        self.merge('add')
        self.assert_merged()

    def test_missing_files_are_passed_over(self):
        for file in self.files:
            file.unlink()
        self.merge('add')
        self.merge('remove')
        self.assertEqual(list(self.vyos.iterdir()), [])

    def test_other_shapes_are_left_alone(self):
        for text in ('', '{', '[', '\udcff', '{"x": 1}', '[1]', 'null', '"x"', '[["a.py"]]', '{"show": {}}',
                     '{"name": "", "children": {}}', '{"name": "", "children": [1]}', '[' * 100_000):
            for what in ('add', 'remove'):
                with self.subTest(text=text[:20], what=what):
                    for file in self.files:
                        file.write_bytes(text.encode(errors='surrogateescape'))
                    before = self.contents()
                    self.merge(what, 'configd-include.json is left as it is', 'op_cache.json is left as it is',
                               'reftree.cache is left as it is')
                    self.assertEqual((self.contents(), self.leftovers()), (before, []))

    def test_an_owner_that_cannot_be_imported_is_not_in_the_list(self):
        before = self.include.read_bytes()
        for text, reason in (('import vyos.nothing\n', "No module named 'vyos.nothing'"), ('def (', 'SyntaxError'),
                             ('def verify(c): pass\n', 'it has no get_config, generate, apply'),
                             ('import os; os.kill(os.getpid(), 9)', 'exit code -9')):
            self.owner.write_text(text)
            self.merge('add', reason)
            self.assertEqual(self.include.read_bytes(), before)
        # Nor does it stay there.
        shutil.copy(PROJECT / 'src/conf_mode' / OWNER, self.owner)
        self.merge('add')
        self.assert_merged()
        self.owner.write_text('import vyos.nothing\n')
        self.merge('add', "No module named 'vyos.nothing'")
        self.assertEqual(self.include.read_bytes(), before)

    def test_modes_and_owners_stay(self):
        for file in self.files:
            file.chmod(0o640)
            if os.geteuid() == 0:
                os.chown(file, 12, 34)
        before = [(file.stat().st_mode, file.stat().st_uid, file.stat().st_gid) for file in self.files]
        for what in ('add', 'remove'):
            self.merge(what)
            self.assertEqual([(f.stat().st_mode, f.stat().st_uid, f.stat().st_gid) for f in self.files], before)

    def test_the_pristine_tree_is_roots_alone(self):
        self.merge('add')
        for path in (self.pristine, *self.pristine.iterdir()):
            self.assertEqual(stat.S_IMODE(path.stat().st_mode) & 0o077, 0, path)
        self.assertEqual([path.read_text() for path in self.pristine.iterdir()], [json.dumps(TREE)])

    @unittest.skipUnless(os.geteuid() == 0, 'only root mounts')
    def test_read_only(self):
        before = self.contents()
        script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$1" -B "$2" "$3"'
        done = self.run_program('add', 'unshare', '--mount', 'sh', '-c', script, self.vyos, sys.executable, PROGRAM)
        self.assertEqual(done.returncode, 0)
        self.assertEqual(done.stderr.count('Read-only file system'), 3, done.stderr)
        self.assertEqual((self.contents(), self.leftovers()), (before, []))

    def test_interrupted_at_any_step_leaves_old_or_new(self):
        before = self.contents()
        self.merge('add')
        after = self.contents()
        for call in ('rename', 'fsync', 'fchmod', 'fchown'):
            for number in range(1, 5):
                for file, content in zip(self.files, before):
                    file.write_bytes(content)
                shutil.rmtree(self.pristine, ignore_errors=True)
                killed = f'''
import os, runpy, sys
real, left = os.{call}, {number}
def counted(*arguments):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), {int(signal.SIGKILL)})
    return real(*arguments)
os.{call} = counted
runpy.run_path({str(PROGRAM)!r}, run_name='__main__')
'''
                done = self.run_program('add', sys.executable, '-B', '-c', killed)
                self.assertEqual(done.returncode, -signal.SIGKILL, (call, number, done.stderr))
                for now, old, new in zip(self.contents(), before, after):
                    self.assertIn(now, (old, new))
                # The next run does the rest, and removes what the interrupted one left.
                self.merge('add')
                self.assertEqual((self.contents(), self.leftovers()), (after, []))
                self.merge('remove')
                self.assertEqual((self.contents(), self.pristine.exists()), (before, False))

    def test_vyos_is_upgraded_in_between(self):
        self.merge('add')
        newer = copy.deepcopy(TREE)
        newer['children'][1]['children'].append(node('new', kind='leaf'))
        written = [b'["a.py", "new.py"]\n', json.dumps(OP_CACHES[1]).encode(), json.dumps(newer).encode()]
        for file, content in zip(self.files, written):
            file.write_bytes(content)
        self.merge('add')
        self.assert_merged()
        self.merge('remove')
        self.assertEqual(self.contents(), written)

    def test_removal_keeps_what_others_have_added_since(self):
        self.merge('add')
        include = json.loads(self.include.read_text()) + ['other.py']
        commands = json.loads(self.op_cache.read_text())
        commands['show']['other'] = command('other', 'node', [])
        tree = json.loads(self.reference_tree.read_text())
        tree['children'].append(node('other'))
        for file, content in zip(self.files, (include, commands, tree)):
            file.write_text(json.dumps(content))
        self.merge('remove')
        self.assertEqual([n['name'] for n in json.loads(self.reference_tree.read_text())['children']],
                         ['high-availability', 'system', 'other'])
        self.assertEqual(json.loads(self.include.read_text()), ['a.py', 'high-availability.py', 'z.py', 'other.py'])
        self.assertEqual(json.loads(self.op_cache.read_text()),
                         {'show': {**OP_CACHES[0]['show'], 'other': command('other', 'node', [])}})
        self.assertEqual(self.own_nodes(), {'global-parameters': [], 'group': []})

    def test_a_newer_version_replaces_the_older_part(self):
        self.merge('add')
        self.assertIn('strange', json.loads(self.op_cache.read_text()))
        commands = {'show': {**OWN_COMMANDS['show'], 'aws-vipa': command('aws-vipa', 'node', ['new'])}}
        (self.own / 'op_cache.json').write_text(json.dumps(commands))
        definitions = next((self.own / 'interface-definitions').iterdir())
        definitions.write_text(definitions.read_text().replace('name="region"', 'name="renamed"'))
        self.merge('add')
        merged = json.loads(self.op_cache.read_text())
        self.assertEqual(merged['show']['aws-vipa'], commands['show']['aws-vipa'])
        # No word stays that only the older part had.
        self.assertEqual(set(merged), {'show'})
        self.assertEqual(merged['show']['arp'], OP_CACHES[0]['show']['arp'])
        self.assertIn('"renamed"', self.reference_tree.read_text())
        self.assertNotIn('"region"', self.reference_tree.read_text())
        self.merge('remove')
        self.assertEqual(json.loads(self.op_cache.read_text()), OP_CACHES[0])

    def test_every_command_of_the_package_is_of_a_known_file(self):
        """By these names the next version finds what this one has merged."""
        def files(entry):
            for word, below in entry.items():
                if word != '__node_data':
                    yield below['__node_data']['files']
                    yield from files(below)

        known = runpy.run_path(str(PROGRAM))['COMMAND_FILES']
        own = json.loads((PROJECT / 'vyos-templates/op_cache.json').read_text())
        self.assertEqual([names for names in files(own) if names != known], [])

    def test_a_library_that_fails_changes_nothing(self):
        before = self.reference_tree.read_bytes()
        for change, reason in (
            (('json.dump(primary, file)', "raise ConfigTreeError('no union')"), 'cannot merge it: vyos.configtree.ConfigTreeError: no union'),
            (('json.dump(primary, file)', 'os.abort()'), 'cannot merge it: '),
            (('json.dump(primary, file)', "file.write('{')"), 'it is not JSON'),
            (("into['children'].append(child)", 'pass'), 'did not merge the aws-vipa nodes'),
            (('    primary = trees.pop(primary_name)', "    primary = trees.pop(primary_name); primary['children'].pop()"), 'changed other nodes'),
            (("            if present['name']", "            present['data'] = child['data']\n            if present['name']"), 'changed other nodes'),
        ):
            self.assertIn(change[0], LIBRARY)
            (self.library / 'configtree.py').write_text(LIBRARY.replace(*change))
            self.merge('add', reason)
            self.assertEqual((self.reference_tree.read_bytes(), self.leftovers()), (before, []))

    def test_vyconf_names_the_tree(self):
        other = self.root / 'usr/libexec/vyos/tree/my.cache'
        other.parent.mkdir(parents=True)
        self.reference_tree.rename(other)
        conf = self.root / 'etc/vyos/vyconfd.conf'
        conf.parent.mkdir(parents=True)
        conf.write_text('[appliance]\nreftree_dir = "/usr/libexec/vyos/tree"\nreference_tree = "my.cache"\n')
        self.reference_tree = other
        self.files[2] = other
        before = self.contents()
        self.merge('add')
        self.assert_merged()
        self.merge('remove')
        self.assertEqual(self.contents(), before)
        for text in ('', '[appliance]\nreftree_dir = 3\nreference_tree = "x"\n', '{', '[appliance]\nreftree_dir = "/x"\n'):
            conf.write_text(text)
            self.merge('add', 'vyconfd.conf does not name a reference tree')

    def test_a_link_stays_a_link(self):
        target = self.root / 'elsewhere.json'
        self.include.rename(target)
        self.include.symlink_to(target)
        self.merge('add')
        self.assertTrue(self.include.is_symlink())
        self.assert_merged()

    def test_usage(self):
        done = self.run_program('merge')
        self.assertEqual((done.returncode, done.stderr), (1, 'usage: merge-into-vyos add | remove\n'))


if __name__ == '__main__':
    unittest.main()
