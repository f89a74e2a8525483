#!/usr/bin/vyos-aws-vipa owner
#
# SPDX-License-Identifier: Apache-2.0

"""Owner of the aws-vipa nodes: VyOS runs it once for each of them that a commit changes.

It passes the proposed and the effective configuration to `vyos-aws-vipa commit`, which determines the changes, verifies,
renders and applies them, and it shows that command's warnings and errors to the operator.

VyOS runs the script as a program or, if configd-include.json lists it, inside vyos-configd or vyos-commitd, which import it
once, so it keeps no state between calls. As a program its interpreter is `vyos-aws-vipa owner`, which ends at once if the
call has nothing left to do, and otherwise executes Python (src/commands/repeated_call.rs).
"""

import json
import os
import subprocess

from sys import argv
from sys import exit
from textwrap import fill

from vyos.base import Warning
from vyos.config import Config
from vyos.utils.boot import boot_configuration_complete
from vyos import ConfigError

# Without vyos.airbag: it triples the start time, and would ask the operator to report this package's errors to VyOS.

BINARY = '/usr/bin/vyos-aws-vipa'

# In seconds. `commit` takes a fraction of one and has its own time limits; this one is for a machine that hangs.
TIMEOUT = 28
# In seconds: the check whether something is left to do. VyOS's daemon is blocked for both, at most 30 s.
LOOK = 2

# The attribute that identifies the commit on the daemon's configuration object. The daemon makes one object per
# commit.
COMMIT = '_vyos_aws_vipa_commit'

# No path or name is broken at the end of a line.
WRAP = {'break_long_words': False, 'break_on_hyphens': False}


class Refused(ConfigError):
    """Errors, one per line: ConfigError would join them into one paragraph."""

    def __init__(self, text):
        self.faults = text.split('\n')
        Exception.__init__(self, '\n'.join(fill(fault, width=72, **WRAP) for fault in self.faults))


def get_config(config=None):
    commit = config and commit_of(config)
    if commit and has_nothing_left(commit):
        return None
    conf = config or Config()
    return {
        'format': 1,
        'boot': not boot_configuration_complete(),
        'called-for': called_for(),
        'commit': commit,
        'proposed': vrrp(conf, effective=False),
        'effective': vrrp(conf, effective=True),
        'interface-addresses': interface_addresses(conf),
    }


def called_for():
    """The script's arguments from the interface definition: the kind of the node, and the VRID of its group.

    vyshim sends the words to vyos-configd without blanks between them, and vyconf does not replace `$VAR(...)`: a call
    without arguments is for every node that the commit changes.
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
    """Runs the program with group and umask as under sudo: VyOS's daemons have their own."""
    if os.geteuid() == 0 and os.getegid() != 0:
        options['group'] = 0
    return subprocess.run([BINARY, *arguments], capture_output=True, timeout=timeout, umask=0o022,
                          env={'PATH': '/usr/sbin:/usr/bin:/sbin:/bin'}, **options)


def vrrp(conf, effective):
    """All of VRRP, because groups can conflict with each other. For a removed tree the result is empty."""
    tree = conf.get_config_dict(['high-availability'], effective=effective, get_first_key=True,
                                no_tag_node_value_mangle=True, with_defaults=True)
    return {'vrrp': tree['vrrp']} if 'vrrp' in tree else {}


def interface_addresses(conf):
    """The configured addresses of every interface, without VRRP's and without those from DHCP."""
    found = {}

    def add(name, node):
        # A single value is not a list.
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
    # `commit` verifies before it writes anything.
    return None


def generate(config):
    # `commit` renders as well.
    return None


def apply(config):
    if config is None:
        # An earlier call of this commit has applied everything.
        return None
    try:
        warnings = commit(config)
    except Refused as e:
        if not config['boot']:
            raise
        # At boot VyOS would drop the nodes of a failed call from the configuration, and the cause may be temporary.
        warnings = e.faults
    if warnings:
        # One message for all warnings: VyOS prints a blank line before and after each message.
        Warning('\nWARNING: '.join(warnings), **WRAP)


def commit(config):
    """Passes the configuration to the program, without a shell; the lines that it prints are warnings."""
    config = {name: value for name, value in config.items() if value is not None}
    try:
        done = run(['commit'], TIMEOUT, input=json.dumps(config).encode())
    except subprocess.TimeoutExpired:
        raise Refused(f'{BINARY} commit did not end within {TIMEOUT} seconds and was stopped: '
                      'see "systemctl list-jobs" and "show log vrrp", then commit again')
    except OSError as e:
        raise Refused(f'cannot run {BINARY}: {e.strerror}; install the package vyos-aws-vipa again')
    output, errors = (text.decode(errors='backslashreplace').strip() for text in (done.stdout, done.stderr))
    if done.returncode != 0:
        errors = errors.removeprefix('vyos-aws-vipa: ')
        raise Refused(errors or f'{BINARY} commit ended with {done.returncode} without an error message: '
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
