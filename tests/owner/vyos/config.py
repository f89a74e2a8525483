"""A configuration session: the file that VYOS_STAND_IN names, or /run/vyos-stand-in.json, holds what is proposed and what is in effect, as
libvyosconfig gives it, where a leaf with a single value is a string even if it may have several.

VYOS_STAND_IN_SECONDS has the seconds that VyOS's own library takes to be imported, to read the two configurations, and to make
a dictionary of one. VYOS_STAND_IN_READS names a file to which each dictionary adds a byte."""

import json
import os
import time

IMPORT, READ, DICT = map(float, os.environ.get('VYOS_STAND_IN_SECONDS', '0 0 0').split())
time.sleep(IMPORT)

# Leaves that may have several values, by their last word: `address` of a VRRP group is a tag node, and an object here.
MULTI = {'address', 'member', 'peer-address', 'route-table'}

GROUP_DEFAULTS = {'priority': '100', 'preempt-delay': '0', 'advertise-interval': '1'}
GLOBAL_DEFAULTS = {'verify-interval': '30', 'request-timeout': '3'}


class Config:
    def __init__(self):
        time.sleep(READ)
        with open(os.environ.get('VYOS_STAND_IN', '/run/vyos-stand-in.json')) as file:
            session = json.load(file)
        self._trees = {False: session['proposed'], True: session['effective']}

    def get_config_dict(self, path=[], effective=False, key_mangling=None, get_first_key=False, no_multi_convert=False,
                        no_tag_node_value_mangle=False, with_defaults=False, with_recursive_defaults=False,
                        with_pki=False):
        assert key_mangling is None, 'it would turn the hyphens of the names of nodes'
        assert get_first_key and not with_recursive_defaults and not with_pki, 'not needed, and not stood in for'
        time.sleep(DICT)
        if reads := os.environ.get('VYOS_STAND_IN_READS'):
            with open(reads, 'a') as file:
                file.write('.')
        node = self._trees[effective]
        for word in path:
            node = node.get(word, {})
        node = json.loads(json.dumps(node))
        if not no_multi_convert:
            lists(node)
        if with_defaults:
            vrrp = node.get('vrrp', {})
            for group in vrrp.get('group', {}).values():
                merge(group, GROUP_DEFAULTS)
            if 'aws-vipa' in vrrp.get('global-parameters', {}):
                merge(vrrp['global-parameters']['aws-vipa'], GLOBAL_DEFAULTS)
        return node


def lists(node):
    for name, value in node.items():
        if isinstance(value, dict):
            lists(value)
        elif name in MULTI and not isinstance(value, list):
            node[name] = [value]


def merge(node, defaults):
    for name, value in defaults.items():
        node.setdefault(name, value)
