#!/usr/bin/vyos-aws-vipa owner
#
# SPDX-License-Identifier: Apache-2.0

"""Owner of the aws-vipa nodes: VyOS runs it once for each of them that a commit changes.

It hands what is proposed and what is in effect to `vyos-aws-vipa commit`, which finds out what changes, verifies,
renders and applies, and it shows the operator what that says.

VyOS runs it as a program or, where it is in configd-include.json, inside vyos-configd or vyos-commitd, which import it once.
So it keeps nothing between calls. As a program it is interpreted by `vyos-aws-vipa owner`, which ends at once if the call
has nothing left to do, and otherwise becomes Python (src/commands/repeated_call.rs).
"""

import json
import os
import subprocess

from sys import argv
from sys import exit
from textwrap import fill
from time import monotonic

from vyos.base import Warning
from vyos.config import Config
from vyos.utils.boot import boot_configuration_complete
from vyos import ConfigError

# Not vyos.airbag: it makes the start three times as long, and sends the operator to VyOS with a fault of ours.

BINARY = '/usr/bin/vyos-aws-vipa'

# In seconds. `commit` is done in a fraction of one, and bounds itself; this is for a machine that hangs.
TIMEOUT = 30
# In seconds, of TIMEOUT: to look whether something is left to do.
LOOK = 2

# The attribute of the daemon's configuration object that identifies the commit. The daemon makes an object for each.
COMMIT = '_vyos_aws_vipa_commit'

# Neither a path nor a name falls apart at the end of a line.
WRAP = {'break_long_words': False, 'break_on_hyphens': False}


class Refused(ConfigError):
    """Faults, a line each: ConfigError would make one paragraph of them."""

    def __init__(self, text):
        self.faults = text.split('\n')
        Exception.__init__(self, '\n'.join(fill(fault, width=72, **WRAP) for fault in self.faults))


def get_config(config=None):
    began = monotonic()
    commit = config and commit_of(config)
    if commit and has_nothing_left(commit):
        return None
    conf = config or Config()
    return {
        'began': began,
        'format': 1,
        'boot': not boot_configuration_complete(),
        'called-for': called_for(),
        'commit': commit,
        'proposed': vrrp(conf, effective=False),
        'effective': vrrp(conf, effective=True),
        'interface-addresses': interface_addresses(conf),
    }


def called_for():
    """What the interface definition says behind this script: the kind of the node, and the VRID of its group.

    vyshim sends the words to vyos-configd without blanks between them, and vyconf does not replace `$VAR(...)`: a call that
    says nothing is for every node that the commit changes.
    """
    words = ''.join(argv[1:])
    kind = 'group' if words.startswith('group') else 'global-parameters'
    vrid = words.removeprefix(kind)
    if not words.startswith(kind) or (vrid and not (kind == 'group' and vrid.isdecimal())):
        return []
    return [kind, vrid] if vrid else [kind]


def commit_of(config):
    commit = getattr(config, COMMIT, None)
    if commit is None:
        commit = os.urandom(16).hex()
        try:
            setattr(config, COMMIT, commit)
        except AttributeError:
            return None
    return commit


def has_nothing_left(commit):
    try:
        done = run(['commit', '--nothing-left', commit, *called_for()], LOOK)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def run(arguments, timeout, **options):
    """Runs the program as VyOS's sudo would: a daemon has a group and a umask of its own."""
    if os.geteuid() == 0 and os.getegid() != 0:
        options['group'] = 0
    return subprocess.run([BINARY, *arguments], capture_output=True, timeout=timeout, umask=0o022,
                          env={'PATH': '/usr/sbin:/usr/bin:/sbin:/bin'}, **options)


def vrrp(conf, effective):
    """The whole of VRRP: one group may be in the way of another. A tree that is removed is empty."""
    tree = conf.get_config_dict(['high-availability'], effective=effective, get_first_key=True,
                                no_tag_node_value_mangle=True, with_defaults=True)
    return {'vrrp': tree['vrrp']} if 'vrrp' in tree else {}


def interface_addresses(conf):
    """The configured addresses of every interface. VRRP's own are not among them, nor what DHCP brings."""
    found = {}

    def add(name, node):
        # A single value is no list.
        given = node.get('address', [])
        given = [given] if isinstance(given, str) else given
        found[name] = [address for address in given if not address.startswith('dhcp')]
        for tag in ('vif', 'vif-s', 'vif-c'):
            for vlan, below in node.get(tag, {}).items():
                add(f'{name}.{vlan}', below)

    for interfaces in conf.get_config_dict(['interfaces'], get_first_key=True, no_multi_convert=True).values():
        for name, node in interfaces.items():
            add(name, node)
    return found


def verify(config):
    # Done by `commit` before it writes anything.
    return None


def generate(config):
    # Likewise.
    return None


def apply(config):
    if config is None:
        # An earlier call of this commit has done it.
        return None
    try:
        warnings = commit(config)
    except Refused as e:
        if not config['boot']:
            raise
        # What fails while the boot configuration is loaded is dropped from it, and this may pass.
        warnings = e.faults
    if warnings:
        # One message for all: VyOS puts a blank line before and after each.
        Warning('\nWARNING: '.join(warnings), **WRAP)


def commit(config):
    """Hands the configuration over, without a shell; the lines that come back are warnings."""
    config = {name: value for name, value in config.items() if value is not None}
    # A look that took its whole time belongs to the time that a daemon may be held up.
    left = TIMEOUT - min(monotonic() - config.pop('began', monotonic()), LOOK)
    try:
        done = run(['commit'], left, input=json.dumps(config).encode())
    except subprocess.TimeoutExpired:
        raise Refused(f'{BINARY} commit did not end within {TIMEOUT} seconds and was stopped: '
                      'see "systemctl list-jobs" and "show log vrrp", then commit again')
    except OSError as e:
        raise Refused(f'cannot run {BINARY}: {e.strerror}; install the package vyos-aws-vipa again')
    output, said = (text.decode(errors='backslashreplace').strip() for text in (done.stdout, done.stderr))
    if done.returncode != 0:
        said = said.removeprefix('vyos-aws-vipa: ')
        raise Refused(said or f'{BINARY} commit ended with {done.returncode} and said nothing: '
                              'see "sudo journalctl -b", then commit again')
    return [line.removeprefix('WARNING: ') for line in output.split('\n')] if output else []


if __name__ == '__main__':
    try:
        c = get_config()
        verify(c)
        generate(c)
        apply(c)
    except ConfigError as e:
        print(e)
        exit(1)
