#!/usr/bin/env python3
#
# SPDX-License-Identifier: Apache-2.0

"""Smoketest of the aws-vipa nodes, to be run on a VyOS router with the package installed, beside VyOS's own ones:

    sudo cp test_high-availability_vrrp_aws-vipa.py /usr/libexec/vyos/tests/smoke/cli/
    /usr/libexec/vyos/tests/smoke/cli/test_high-availability_vrrp_aws-vipa.py

It replaces what is below `high-availability` while it runs, and loads the saved configuration at its end. It calls no
AWS: the endpoint is a closed port of the router itself. Like VyOS's own test of VRRP it uses eth1.
"""

import grp
import json
import os
import stat
import time
import unittest

from base_vyostest_shim import VyOSUnitTestSHIM

from vyos.configsession import ConfigSessionError
from vyos.utils.file import read_file
from vyos.utils.process import is_systemd_service_running
from vyos.utils.process import process_named_running
from vyos.utils.process import rc_cmd

AGENT = 'vyos-aws-vipa.service'
RUN = '/run/vyos-aws-vipa'
CONFIG = f'{RUN}/config.json'
GROUPS = f'{RUN}/groups.json'
INCLUDE = f'{RUN}/keepalived.conf'
FIFO = f'{RUN}/notify.fifo'
KEEPALIVED_CONF = '/run/keepalived/keepalived.conf'
CREDENTIALS = '/run/aws-vipa-smoketest'
CREDENTIALS_COPY = '/run/vyos-aws-vipa/credentials.json'
CREDENTIALS_TIMER = 'vyos-aws-vipa-credentials.timer'

interface = 'eth1'
vlan = '77'
vif = f'{interface}.{vlan}'
vip = '100.64.77.1'
excluded = '100.64.77.9'
local = '100.64.77.2'
peer = '100.64.77.3'
overlay = '100.64.78.1'

base_path = ['high-availability', 'vrrp']
vif_path = ['interfaces', 'ethernet', interface, 'vif', vlan]
global_path = base_path + ['global-parameters', 'aws-vipa']

# Every node with a value for it, and what becomes of that in config.json.
GLOBAL_NODES = {
    'ca-certificate-file': ('/config/auth/aws-vipa-smoketest.pem', '/config/auth/aws-vipa-smoketest.pem'),
    'credentials-file': (CREDENTIALS, CREDENTIALS),
    'endpoint-url': ('http://127.0.0.1:9', 'http://127.0.0.1:9'),
    'profile': ('smoketest', 'smoketest'),
    'region': ('eu-central-1', 'eu-central-1'),
    'request-timeout': ('7', 7),
    'verify-interval': ('120', 120),
}
GROUP_NODES = {
    'address': (excluded, [excluded]),
    'disable': (None, True),
    'interface': (interface, interface),
    'network-interface-id': ('eni-0123456789abcdef0', 'eni-0123456789abcdef0'),
}

# What follows the master across subnets: every node once, and one of several values twice.
ROUTE = f'{overlay}/32'
TABLES = ['rtb-01234567', 'rtb-0123456789abcdef0']
ELASTIC_IP = 'eipalloc-0123456789abcdef0'
ZONE_NODES = [
    ['no-address'],
    ['route', ROUTE, 'route-table', TABLES[0]],
    ['route', ROUTE, 'route-table', TABLES[1]],
    ['route', ROUTE, 'interface', interface],
    ['elastic-ip', ELASTIC_IP, 'private-address', local],
    ['elastic-ip', ELASTIC_IP, 'interface', interface],
]

# Values that the definitions refuse when they are set.
REFUSED_GLOBAL = [
    ('ca-certificate-file', 'aws.pem'),
    ('credentials-file', 'credentials'),
    ('endpoint-url', 'ec2.example'),
    ('endpoint-url', 'https://ec2.example/path'),
    ('profile', 'two words'),
    ('region', 'EU'),
    ('request-timeout', '0'),
    ('request-timeout', '31'),
    ('verify-interval', '4'),
    ('verify-interval', '301'),
]
REFUSED_GROUP = [
    ('address', f'{vip}/24'),
    ('address', '2001:db8::1'),
    ('elastic-ip', 'eipalloc-1'),
    ('elastic-ip', '203.0.113.9'),
    ('elastic-ip', ELASTIC_IP, 'interface', 'dum0'),
    ('elastic-ip', ELASTIC_IP, 'private-address', f'{local}/24'),
    ('interface', 'dum0'),
    ('network-interface-id', 'eni-1'),
    ('network-interface-id', 'i-0123456789abcdef0'),
    ('route', '10.0.0.1/8'),
    ('route', '2001:db8::1/64'),
    ('route', overlay),
    ('route', ROUTE, 'interface', 'dum0'),
    ('route', ROUTE, 'route-table', 'rtb-1'),
    ('route', ROUTE, 'route-table', 'vpc-0123456789abcdef0'),
]


def group_path(group):
    return base_path + ['group', group]


def aws_path(group):
    return group_path(group) + ['aws-vipa']


def agent_runs():
    return is_systemd_service_running(AGENT)


def timer_runs():
    return rc_cmd(f'systemctl is-active {CREDENTIALS_TIMER}')[0] == 0


def attached():
    """Whether keepalived holds the FIFO open."""
    _, pids = rc_cmd('pgrep -x keepalived')
    found = [rc_cmd(f'sudo find /proc/{pid}/fd -lname {FIFO}') for pid in pids.split()]
    return any(code == 0 and out.startswith('/proc/') for code, out in found)


class TestAwsVipa(VyOSUnitTestSHIM.TestCase):
    @classmethod
    def setUpClass(cls):
        super(TestAwsVipa, cls).setUpClass()
        # A router in use comes back when the saved configuration is loaded at the end.
        cls.cli_delete(cls, ['high-availability'])
        cls.cli_delete(cls, vif_path)

    def setUp(self):
        self.cli_set(vif_path + ['address', f'{local}/24'])
        self.cli_set(global_path + ['endpoint-url', 'http://127.0.0.1:9'])

    def tearDown(self):
        # What a failed test left.
        self._session.discard()
        self.cli_delete(['high-availability'])
        self.cli_delete(vif_path)
        self.cli_commit()
        self.assert_gone()
        self.assertFalse(process_named_running('keepalived'))

    def set_group(self, group, vrid, address=f'{vip}/24'):
        path = group_path(group)
        self.cli_set(path + ['vrid', vrid])
        self.cli_set(path + ['interface', vif])
        self.cli_set(path + ['address', address])
        self.cli_set(path + ['hello-source-address', local])
        self.cli_set(path + ['peer-address', peer])

    def wait(self, what, done):
        deadline = time.monotonic() + 20
        while not done():
            self.assertLess(time.monotonic(), deadline, f'waited 20 seconds for {what}')
            time.sleep(0.1)

    def config(self):
        return json.loads(read_file(CONFIG))

    def groups(self):
        """The groups that keepalived runs, by name."""
        return {group['name']: group for group in json.loads(read_file(GROUPS))['groups']}

    def assert_runs(self):
        self.wait('the agent', agent_runs)
        self.wait('keepalived to hold the FIFO', attached)
        self.assertEqual(read_file(KEEPALIVED_CONF).count(f'include {INCLUDE}'), 1)
        self.assertIn(f'vrrp_notify_fifo {FIFO}', read_file(INCLUDE))
        fifo = os.stat(FIFO)
        self.assertTrue(stat.S_ISFIFO(fifo.st_mode))
        self.assertEqual((stat.S_IMODE(fifo.st_mode), fifo.st_uid), (0o640, 0))
        for path in [RUN, CONFIG, GROUPS, INCLUDE]:
            found = os.stat(path)
            self.assertEqual((found.st_uid, found.st_mode & 0o022), (0, 0), f'{path} is root\'s alone to write')

    def assert_gone(self):
        self.wait('the agent to end', lambda: not agent_runs())
        self.wait('keepalived to let go of the FIFO', lambda: not attached())
        self.assert_no_credentials()
        for path in [CONFIG, GROUPS, INCLUDE]:
            self.assertFalse(os.path.exists(path), path)
        if os.path.exists(KEEPALIVED_CONF):
            self.assertNotIn(RUN, read_file(KEEPALIVED_CONF))

    def assert_no_credentials(self):
        self.wait('the timer to end', lambda: not timer_runs())
        self.assertFalse(os.path.exists(CREDENTIALS_COPY))

    def assert_refused(self, path, *values):
        """A commit fails, names the node, and leaves what runs as it is."""
        before = read_file(CONFIG)
        with self.assertRaises(ConfigSessionError) as caught:
            self.cli_commit()
        shown = ' '.join(str(caught.exception).split())
        self.assertIn(' '.join(path) + ':', shown)
        for value in values:
            self.assertIn(value, shown)
        self.assertEqual(read_file(CONFIG), before)
        self._session.discard()

    def test_01_new_group(self):
        self.set_group('web', '10')
        self.cli_set(aws_path('web'))
        self.cli_commit()
        self.assert_runs()
        config = self.config()
        self.assertEqual([group['name'] for group in config['groups']], ['web'])
        self.assertEqual(config['skipped'], [])
        # The defaults
        self.assertEqual((config['global']['verify_interval'], config['global']['request_timeout']), (30, 3))
        group = self.groups()['web']
        self.assertEqual((group['interface'], group['vrid'], group['peers']), (vif, 10, [peer]))
        self.assertEqual([a['address'] for a in group['addresses']], [vip])
        self.assertIn('web', self.op_mode(['show', 'aws-vipa', 'status']))

    def test_02_every_node(self):
        # Root's alone, and without a key: whatever the endpoint, AWS is not called.
        self.addCleanup(rc_cmd, f'sudo rm -f {CREDENTIALS}')
        self.assertEqual(rc_cmd(f'sudo install -m 0600 /dev/null {CREDENTIALS}')[0], 0)
        self.set_group('web', '10')
        self.cli_set(group_path('web') + ['excluded-address', f'{excluded}/24'])
        for path, nodes in [(global_path, GLOBAL_NODES), (aws_path('web'), GROUP_NODES)]:
            for node, (value, _) in nodes.items():
                self.cli_set(path + [node] + ([value] if value is not None else []))
        self.cli_commit()
        self.assert_runs()
        config = self.config()
        for found, nodes in [(config['global'], GLOBAL_NODES), (config['groups'][0], GROUP_NODES)]:
            for node, (_, expected) in nodes.items():
                key = {'address': 'addresses'}.get(node, node.replace('-', '_'))
                self.assertEqual(found[key], expected, node)
        copied = rc_cmd(f"sudo stat --format '%a %u:%g' {CREDENTIALS_COPY}")
        self.assertEqual(copied, (0, f'640 0:{grp.getgrnam("vyos-aws-vipa-agent").gr_gid}'))
        self.assertIn(f'"file":"{CREDENTIALS}"', rc_cmd(f'sudo cat {CREDENTIALS_COPY}')[1])
        self.wait('the timer', timer_runs)
        # One after the other goes again, and the credentials last.
        for path, nodes in [(global_path, GLOBAL_NODES), (aws_path('web'), GROUP_NODES)]:
            for node in nodes:
                if node != 'credentials-file':
                    self.cli_delete(path + [node])
                    self.cli_commit()
        config = self.config()
        for key in ['ca_certificate_file', 'endpoint_url', 'profile', 'region']:
            self.assertIsNone(config['global'][key], key)
        self.assertEqual((config['global']['verify_interval'], config['global']['request_timeout']), (30, 3))
        self.assertEqual((config['groups'][0]['addresses'], config['groups'][0]['disable']), ([], False))
        self.cli_set(global_path + ['endpoint-url', 'http://127.0.0.1:9'])
        self.cli_delete(global_path + ['credentials-file'])
        self.cli_commit()
        self.assertIsNone(self.config()['global']['credentials_file'])
        self.assert_no_credentials()
        self.assert_runs()

    def test_03_values_refused_when_set(self):
        for path, refused in [(global_path, REFUSED_GLOBAL), (aws_path('web'), REFUSED_GROUP)]:
            for words in refused:
                with self.subTest(words=words):
                    with self.assertRaises(ConfigSessionError):
                        self.cli_set(path + list(words))
        self._session.discard()

    def test_04_faults_fail_the_commit(self):
        self.set_group('web', '10')
        self.cli_set(aws_path('web'))
        self.cli_commit()
        path = aws_path('web')

        self.cli_set(path + ['address', '100.64.77.200'])
        self.assert_refused(path + ['address', '100.64.77.200'], 'the group has no such address')

        self.cli_set(path + ['interface', 'eth977'])
        self.assert_refused(path + ['interface'], 'interface eth977 does not exist')

        self.cli_set(global_path + ['profile', 'smoketest'])
        self.assert_refused(global_path + ['profile'], 'set credentials-file too')

        # One address in two groups, one that is the router's own, and a group without an IPv4 address
        self.set_group('again', '11')
        self.cli_set(aws_path('again'))
        self.assert_refused(aws_path('again'), vip, 'web')
        self.forget('again')

        self.set_group('own', '12', f'{local}/24')
        # keepalived would take the address from the interface, and nobody puts it back.
        self.cli_set(group_path('own') + ['disable'])
        self.cli_set(aws_path('own'))
        self.assert_refused(aws_path('own'), local, vif)
        self.forget('own')
        self.assertIn(f' {local}/24 ', rc_cmd(f'ip -4 -o address show dev {vif}')[1])

        six = group_path('six')
        self.cli_set(six + ['vrid', '13'])
        self.cli_set(six + ['interface', vif])
        self.cli_set(six + ['address', '2001:db8::77/64'])
        self.cli_set(aws_path('six'))
        self.assert_refused(aws_path('six'), 'no IPv4 address')
        self.forget('six')

        self.assert_runs()

    def forget(self, group):
        """A commit that fails in part keeps what VRRP itself took of a new group."""
        self.cli_delete(group_path(group))
        self.cli_commit()

    def test_05_warnings(self):
        path = group_path('web')
        self.cli_set(path + ['vrid', '10'])
        self.cli_set(path + ['interface', vif])
        self.cli_set(path + ['address', '100.65.0.1/24'])
        self.cli_set(aws_path('web'))
        self.cli_set(global_path + ['credentials-file', '/root/.aws/credentials'])
        shown = ' '.join(self._session.commit().split())
        for expected in ['no peer-address', 'no hello-source-address', f'not in a subnet of {vif}', 'image upgrade']:
            self.assertIn(expected, shown)
        self.assertEqual([group['name'] for group in self.config()['groups']], ['web'])

    def test_06_other_nodes_and_more_groups(self):
        self.set_group('web', '10')
        self.cli_set(aws_path('web'))
        self.cli_commit()
        inode = os.stat(FIFO).st_ino
        # The owner of aws-vipa does not run for this, and the agent hears of it all the same.
        self.cli_set(group_path('web') + ['address', f'{excluded}/24'])
        self.cli_commit()
        self.assertEqual([a['address'] for a in self.groups()['web']['addresses']], [vip, excluded])
        self.set_group('two', '11', '100.64.77.11/24')
        self.set_group('three', '12', '100.64.77.12/24')
        self.cli_set(aws_path('two'))
        self.cli_set(aws_path('three') + ['disable'])
        self.cli_commit()
        self.assertEqual([group['name'] for group in self.config()['groups']], ['three', 'two', 'web'])
        self.assertEqual(sorted(self.groups()), ['three', 'two', 'web'])
        self.cli_delete(group_path('two'))
        self.cli_commit()
        self.assertEqual([group['name'] for group in self.config()['groups']], ['three', 'web'])
        self.assertEqual(sorted(self.groups()), ['three', 'web'])
        self.assertEqual(os.stat(FIFO).st_ino, inode)
        self.assert_runs()

    def test_07_last_node_goes(self):
        self.set_group('web', '10')
        self.cli_commit()
        self.assert_gone()
        self.cli_set(aws_path('web'))
        self.cli_commit()
        self.assert_runs()
        self.cli_delete(aws_path('web'))
        self.cli_commit()
        self.assert_gone()
        self.assertTrue(process_named_running('keepalived'))

    def test_08_routes_and_elastic_ips(self):
        path = aws_path('web')
        self.set_group('web', '10', ROUTE)
        self.cli_set(path)
        shown = ' '.join(self._session.commit().split())
        self.assertIn(f'an overlay address needs aws-vipa route {ROUTE}', shown)
        before = self.config()['groups'][0]
        for words in ZONE_NODES:
            self.cli_set(path + words)
        self.cli_commit()
        self.assert_runs()
        group = self.config()['groups'][0]
        routes = [{'destination': ROUTE, 'tables': TABLES, 'interface': interface}]
        elastic_ips = [{'allocation': ELASTIC_IP, 'private_address': local, 'interface': interface}]
        self.assertEqual(group, before | {'no_address': True, 'routes': routes, 'elastic_ips': elastic_ips})
        # One after the other goes again.
        self.cli_delete(path + ['route', ROUTE, 'route-table', TABLES[0]])
        self.cli_delete(path + ['route', ROUTE, 'interface'])
        self.cli_delete(path + ['elastic-ip', ELASTIC_IP, 'private-address'])
        self.cli_delete(path + ['elastic-ip', ELASTIC_IP, 'interface'])
        self.cli_commit()
        group = self.config()['groups'][0]
        self.assertEqual(group['routes'], [{'destination': ROUTE, 'tables': TABLES[1:], 'interface': None}])
        self.assertEqual(group['elastic_ips'], [{'allocation': ELASTIC_IP, 'private_address': None, 'interface': None}])
        self.cli_delete(path + ['elastic-ip', ELASTIC_IP])
        self.cli_commit()
        self.assertNotIn('elastic_ips', self.config()['groups'][0])

        self.cli_delete(path + ['route', ROUTE, 'route-table'])
        self.assert_refused(path + ['route', ROUTE], 'set route-table too')
        self.cli_set(path + ['route', ROUTE, 'interface', 'eth977'])
        self.assert_refused(path + ['route', ROUTE, 'interface'], 'interface eth977 does not exist')
        self.cli_set(path + ['address', overlay])
        self.assert_refused(path + ['no-address'], 'delete one of the two')
        self.cli_delete(path + ['route'])
        self.assert_refused(path + ['no-address'], 'leaves nothing to move')
        self.set_group('again', '11')
        self.cli_set(aws_path('again') + ['route', ROUTE, 'route-table', TABLES[1]])
        self.assert_refused(aws_path('again') + ['route', ROUTE, 'route-table', TABLES[1]], 'web')
        self.forget('again')

        self.cli_delete(path + ['no-address'])
        self.cli_delete(path + ['route'])
        self.cli_commit()
        self.assertEqual(self.config()['groups'], [before])
        self.assert_runs()


if __name__ == '__main__':
    unittest.main(verbosity=2)
