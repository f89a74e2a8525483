"""Stand-in for what VyOS's smoketests are built on: a configuration session that knows our nodes by the definitions, and
VyOS's own as far as the smoketest sets them. A commit is done by whoever reads standard output and answers."""

import ipaddress
import json
import pathlib
import re
import sys
import unittest
import xml.etree.ElementTree as ElementTree

from vyos.configsession import ConfigSessionError
from vyos.utils.process import rc_cmd

DEFINITIONS = pathlib.Path(__file__).parents[2] / 'interface-definitions'
TEMPLATES = DEFINITIONS.with_name('vyos-templates')


class Node:
    def __init__(self, kind, children=None, multi=False, valueless=False, constraints=()):
        self.kind, self.children = kind, children or {}
        self.multi, self.valueless, self.constraints = multi, valueless, constraints

    @classmethod
    def read(cls, element):
        kind = {'node': 'node', 'tagNode': 'tag', 'leafNode': 'leaf'}[element.tag]
        children = element.find('children')
        below = {child.get('name'): cls.read(child) for child in (children if children is not None else [])}
        has = lambda name: element.find(f'properties/{name}') is not None
        return cls(kind, below, has('multi'), has('valueless'), list(element.findall('properties/constraint/*')))

    def accepts(self, value):
        return not self.constraints or any(fits(constraint, value) for constraint in self.constraints)


def fits(constraint, value):
    if constraint.tag == 'regex':
        return re.fullmatch(constraint.text, value) is not None
    name, argument = constraint.get('name'), constraint.get('argument')
    if name == 'numeric' and argument.startswith('--range '):
        low, high = argument.removeprefix('--range ').split('-')
        return value.isdigit() and int(low) <= int(value) <= int(high)
    of = {
        'ipv4-address': ipaddress.IPv4Address,
        'ipv4-prefix': prefix(ipaddress.IPv4Network),
        'ipv6-prefix': prefix(ipaddress.IPv6Network),
    }
    if name in of:
        try:
            return bool(of[name](value))
        except ValueError:
            return False
    raise NotImplementedError(f'validator {name} {argument}')


def prefix(network):
    """What ipaddrcheck takes for a network: with a length, and without host bits."""
    def check(value):
        if '/' not in value:
            raise ValueError
        return network(value) is not None
    return check


def definitions():
    ours = ElementTree.parse(DEFINITIONS / 'high-availability_vrrp_aws-vipa.xml').getroot()
    ours = Node.read(ours.find('node')).children['vrrp'].children
    tags, leaf = Node('tag'), Node('leaf')
    group = {name: leaf for name in ('vrid', 'interface', 'hello-source-address')}
    group['disable'] = Node('leaf', valueless=True)
    group |= {'address': tags, 'excluded-address': tags, 'peer-address': Node('leaf', multi=True)}
    group |= ours['group'].children
    address = {'address': Node('leaf', multi=True)}
    return Node('node', {
        'high-availability': Node('node', {'vrrp': Node('node', {
            'global-parameters': ours['global-parameters'],
            'group': Node('tag', group),
        })}),
        'interfaces': Node('node', {'ethernet': Node('tag', address | {'vif': Node('tag', address)})}),
    })


def operational_command(path):
    """The command that the templates run for these words."""
    node_def = TEMPLATES.joinpath('op', *path, 'node.def').read_text()
    return next(line.removeprefix('run: ') for line in node_def.splitlines() if line.startswith('run: '))


class Session:
    def __init__(self):
        self.root = definitions()
        self.effective = {}
        self.discard()

    def discard(self):
        self.proposed = json.loads(json.dumps(self.effective))

    def set(self, path):
        words, node, at = list(path), self.root, self.proposed
        while words:
            word = words.pop(0)
            if word not in node.children:
                raise ConfigSessionError(f'{" ".join(path)}: {word} is not defined')
            node = node.children[word]
            if node.kind == 'leaf' and not node.valueless:
                if len(words) != 1 or not node.accepts(words[0]):
                    raise ConfigSessionError(f'{" ".join(path)}: the value is refused')
                value = words.pop()
                given = at.get(word, [])
                given = [given] if isinstance(given, str) else given
                values = given + [value] * (value not in given)
                # As libvyosconfig gives it: a list only where there are several.
                at[word] = values if node.multi and len(values) > 1 else value
                continue
            if node.kind == 'tag' and words and not node.accepts(words[0]):
                raise ConfigSessionError(f'{" ".join(path)}: the value is refused')
            at = at.setdefault(word, {})
            if node.kind == 'tag' and words:
                at = at.setdefault(words.pop(0), {})

    def delete(self, path):
        def without(at, words):
            if words[0] in at:
                if len(words) == 1 or at[words[0]] == words[1]:
                    del at[words[0]]
                elif isinstance(at[words[0]], list):
                    values = [value for value in at[words[0]] if value != words[1]]
                    at[words[0]] = values if len(values) > 1 else values[0]
                else:
                    without(at[words[0]], words[1:])
                    # VyOS keeps an empty node, and no tag node without a tag.
                    if words[0] in ('group', 'vif', 'ethernet', 'route', 'elastic-ip') and not at[words[0]]:
                        del at[words[0]]

        without(self.proposed, path)

    def commit(self):
        print(json.dumps(self.proposed), flush=True)
        answer = json.loads(sys.stdin.readline())
        self.effective = answer['effective']
        if not answer['passed']:
            raise ConfigSessionError(answer['shown'])
        return answer['shown']


class VyOSUnitTestSHIM:
    class TestCase(unittest.TestCase):
        @classmethod
        def setUpClass(cls):
            cls._session = Session()

        def cli_set(self, path):
            self._session.set(path)

        def cli_delete(self, path):
            self._session.delete(path)

        def cli_commit(self):
            self._session.commit()

        def op_mode(self, path):
            return rc_cmd(operational_command(path))[1]
