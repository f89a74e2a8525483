"""Tests of scripts/accept-on-aws: its parts, and whole runs against the simulator.

tests/simulator/tests/acceptance.rs runs them, one class each, with VIPA_SIMULATOR and VIPA_AWS_VENV set.
"""

import base64
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree

import yaml

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

import stand_in
from acceptance import assumptions, main
from acceptance.aws import AwsError
from acceptance.failovers import Failovers, NotMeasured, healed, outage
from acceptance.targets import Account

TEMPLATE = (HERE / 'template.yaml').read_text()


class Parts(unittest.TestCase):
    def test_every_assumption_of_the_agent_has_a_check(self):
        source = (ROOT / 'src/aws/assumptions.rs').read_text()
        rows = re.findall(r'^//! \| (.*?) \| ', source, re.M)[1:]
        plain = [re.sub(r'\[?`([^`]*)`\]?(\([^)]*\))?', r'\1', row) for row in rows if not row.startswith('---')]
        self.assertEqual([text for _, text, _ in assumptions.CHECKS], plain)
        self.assertIn(f'MAX_FILTER_VALUES: usize = {assumptions.MAX_FILTER_VALUES};', source)
        tolerance = re.search(r'CLOCK_TOLERANCE: Duration = Duration::from_mins\((\d+)\)', (ROOT / 'src/core/model/ec2.rs').read_text())
        self.assertEqual(int(tolerance[1]) * 60, assumptions.CLOCK_TOLERANCE)
        idle = re.search(r'const IDLE_TIMEOUT: Duration = Duration::from_secs\((\d+)\)', (ROOT / 'src/aws/transport.rs').read_text())
        self.assertEqual(int(idle[1]), Account.times.idle)

    def test_an_outage_lies_between_two_routers(self):
        def seen(*periods):
            found = outage('s', 'p', [list(period) for period in periods], 'router1', 'router2')
            return found.outage and round(found.outage), found.after, found.detail

        self.assertEqual(seen((0, 1, 'router1', 9), (3.5, 9, 'router2', 9)), (2500, 'router2', ''))
        self.assertEqual(seen((0, 1, 'router1', 9), (3, 4, 'router2', 9), (6, 9, 'router2', 9)),
                         (2000, 'router2', 'then 2000 ms without an answer'))
        self.assertEqual(seen((0, 1, 'router1', 9), (2, 3, 'router2', 9), (3, 4, 'router1', 9), (4, 9, 'router2', 9)),
                         (1000, 'router2', 'router1 answered again later'))
        self.assertEqual(seen((0, 9, 'router1', 9)), (None, None, 'router2 did not answer'))
        self.assertEqual(seen((3, 9, 'router2', 9)), (None, 'router2', 'router1 did not answer before'))
        self.assertEqual(seen(), (None, None, 'router1 did not answer before'))

    def test_in_a_split_brain_that_heals_the_last_turn_counts(self):
        def seen(*periods):
            found = healed('s', 'p', [list(period) for period in periods], 'router2', 'router1')
            return found.outage and round(found.outage), found.before, found.after, found.detail

        self.assertEqual(seen((0, 1, 'router2', 9), (3, 4, 'router1', 9), (5, 6, 'router2', 9), (6.5, 9, 'router1', 9)),
                         (500, 'router2', 'router1', ''))
        self.assertEqual(seen((0, 4, 'router1', 9), (4.25, 9, 'router1', 9)), (250, 'router1', 'router1', 'router1 answered all along'))
        self.assertEqual(seen((0, 1, 'router1', 9), (2, 9, 'router2', 9)), (None, 'router2', None, 'router1 did not answer'))
        self.assertEqual(seen(), (None, None, None, 'router2 did not answer before'))

    def test_an_error_that_is_not_about_the_call_gives_no_verdict(self):
        """Neither a permission that the operator lacks nor a lost network may confirm or refute anything."""
        for code in (None, 'UnauthorizedOperation', 'RequestLimitExceeded', 'ExpiredToken', 'Unavailable'):
            def refuse(service, operation, *arguments, code=code):
                if 'unassign' in operation or operation == 'describe-network-interfaces' and '--network-interface-ids' in arguments:
                    return {'NetworkInterfaces': []}
                raise AwsError(operation, code, 'refused')

            refuse.number = 0
            checks = assumptions.Checks(refuse, {'Network': '10.99', 'SpareInterface': 'eni-1', 'SubnetA': 'subnet-1'}, None, None,
                                        lambda text: None)
            checks.interface = 'eni-2'
            for check in (checks.filter_values, checks.repeated_claim, checks.acknowledged_claim, checks.batch):
                checks.judge(check.__name__, '', check)
            self.assertEqual({each.verdict for each in checks.verdicts}, {'not told'}, (code, checks.verdicts))
        for code in ('FilterLimitExceeded', 'PrivateIpAddressLimitExceeded', 'InvalidParameterValue'):
            self.assertTrue(AwsError('', code, '').is_verdict(), code)

    def test_a_link_that_security_groups_do_not_cut_is_not_measured_on_vyos(self):
        failovers = Failovers(None, {}, {}, [], 'vyos', None, print)
        with self.assertRaisesRegex(NotMeasured, 'so they did not, and VyOS has no SSM agent'):
            failovers.cut_on_routers('link cut', [], '', 'so they did not')

    def test_a_key_that_is_not_renewed_in_time_gives_no_verdict(self):
        def judged(first, last):
            class Near:
                def run(self, verb):
                    return {'expires': 'then'} | last

            checks = assumptions.Checks(None, {'Network': '10.99', 'SpareInterface': ''}, Near(), None, print)
            checks.first_key = first
            return checks.key_renewal()[0]

        first = {'key': 'a', 'now': 0, 'left': 1000}
        for last, verdict in (
                ({'key': 'a', 'now': 690, 'left': 310}, 'not told'), ({'key': 'a', 'now': 710, 'left': 290}, 'refuted'),
                ({'key': 'b', 'now': 690, 'left': 9000}, 'confirmed'), ({'key': 'b', 'now': 710, 'left': 9000}, 'not told')):
            self.assertEqual(judged(first, last), verdict, last)

    def test_the_routers_answer_from_the_address_that_was_asked(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        echo = subprocess.Popen([sys.executable, HERE / 'router/echo.py', 'router1', str(port)])
        try:
            # An address that is not the first of the interface. A connected socket takes answers from it alone.
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.connect(('127.77.0.100', port))
                client.settimeout(0.1)
                deadline = time.monotonic() + 20
                while True:
                    try:
                        client.send(b'probe 7')
                        self.assertEqual(client.recv(64), b'probe 7 router1')
                        break
                    except (ConnectionRefusedError, TimeoutError):
                        self.assertLess(time.monotonic(), deadline, 'no answer')
                client.settimeout(20)
                client.send(b'anything else')
                client.send(b'probe 8')
                # The first one may have been sent, and answered, more than once.
                answers = iter(lambda: client.recv(64), b'')
                self.assertEqual(next(answer for answer in answers if answer != b'probe 7 router1'), b'probe 8 router1')
        finally:
            echo.kill()
            echo.wait()

    def test_the_template_has_the_least_policy_and_vrrp_in_both_directions(self):
        given = {'RouterImage': 'ami-1', 'RouterSystem': 'debian', 'ClientImage': 'ami-2'}
        stack = stand_in.Stack('s', TEMPLATE, given)
        policy = stack.value(stack.properties('RouterRole')['Policies'])[0]['PolicyDocument']
        allowed = {}
        for statement in policy['Statement']:
            for action in [statement['Action']] if isinstance(statement['Action'], str) else statement['Action']:
                resources = statement['Resource']
                allowed.setdefault(action, set()).update([resources] if isinstance(resources, str) else resources)
        kind = lambda arn: arn.split(':')[-1].split('/')[0]
        arns = {key: f'arn:aws:ec2:eu-west-1:123456789012:{resource}/{stack.ids[key]}' for key, resource in {
            'Router1Interface': 'network-interface', 'Router2Interface': 'network-interface', 'RoutesA': 'route-table',
            'RoutesB': 'route-table', 'AddressOfMaster': 'elastic-ip'}.items()}
        interfaces, tables = ({arns[key] for key in keys} for keys in (('Router1Interface', 'Router2Interface'), ('RoutesA', 'RoutesB')))
        self.assertEqual(allowed, {
            'ec2:AssignPrivateIpAddresses': interfaces, 'ec2:ReplaceRoute': tables, 'ec2:CreateRoute': tables,
            'ec2:AssociateAddress': interfaces | {arns['AddressOfMaster']}, 'ec2:DescribeNetworkInterfaces': {'*'},
            'ec2:DescribeInstanceTypes': {'*'}, 'ec2:DescribeRouteTables': {'*'}, 'ec2:DescribeAddresses': {'*'}})
        # What the program itself prints for such a pair: the same actions, for the same kinds of resources.
        generated = (ROOT / 'tests/status/iam-policy-across-zones.txt').read_text()
        printed = {}
        for statement in json.JSONDecoder().raw_decode(generated)[0]['Statement']:
            for action in [statement['Action']] if isinstance(statement['Action'], str) else statement['Action']:
                printed.setdefault(action, set()).update(kind(arn) for arn in statement['Resource'])
        self.assertEqual({action: {kind(arn) for arn in arns} for action, arns in allowed.items()}, printed)
        for router in ('Router1Interface', 'Router2Interface'):
            given = stack.value(stack.properties(router))
            self.assertIn(stack.ids['VrrpGroup'], given['GroupSet'])
            self.assertIs(given['SourceDestCheck'], False)
        for rule, other in (('VrrpIn', 'SourceSecurityGroupId'), ('VrrpOut', 'DestinationSecurityGroupId')):
            given = stack.value(stack.properties(rule))
            self.assertEqual((given['IpProtocol'], given['GroupId'], given[other]), ('112', *[stack.ids['VrrpGroup']] * 2))

    def test_the_document_shows_parts_of_the_template(self):
        document = (ROOT / 'docs/operations/aws.md').read_text()
        parts = re.findall(r'```yaml\n(.*?)```', document, re.S)
        self.assertGreaterEqual(len(parts), 3)
        for part in parts:
            self.assertIn(part, TEMPLATE)
        options = set(re.findall(r'^\| `(--[a-z-]+)', document, re.M)) | {'--against', '--simulate', '--help'}
        shown = subprocess.run([sys.executable, ROOT / 'scripts/accept-on-aws', '--help'], capture_output=True, text=True, check=True)
        self.assertEqual(options, set(re.findall(r'--[a-z-]+(?=[ ,\n\]])', shown.stdout.partition('options:')[2].partition('Exit code')[0])))

    def test_both_systems_get_their_script_with_all_arguments(self):
        for system, script in (('debian', 'on-debian'), ('vyos', 'on-vyos')):
            stack = stand_in.Stack('s', TEMPLATE, {'RouterImage': 'a', 'RouterSystem': system, 'ClientImage': 'b', 'BundleUrl': 'https://u/b'})
            data = stack.value(stack.properties('RouterTemplate')['LaunchTemplateData'])['UserData']
            text = base64.b64decode(data).decode()
            if system == 'vyos':
                text, = (each['content'] for each in yaml.safe_load(text)['write_files'])
            text = text.replace('\\\n', ' ')
            call, = (line for line in text.splitlines() if f' {script} ' in line and line.startswith('exec'))
            given = [word.strip("'") for word in call.split(f' {script} ')[1].split('>')[0].split()]
            expected = ['10.99', '10.255.0.1', '4070', stack.ids['RoutesA'], stack.ids['RoutesB'], stack.ids['AddressOfMaster']]
            self.assertEqual(given, (['install'] if system == 'debian' else []) + expected)
            self.assertIn("'https://u/b'", text)
            subprocess.run(['bash', '-n'], input=text, text=True, check=True)

    def test_both_systems_get_the_same_group(self):
        """What on-debian hands to `commit` (tests/owner runs it) is what VyOS would hand over for on-vyos's commands."""
        values = {'network': '10.99', 'overlay': '10.255.0.1', 'table_a': 'rtb-a', 'table_b': 'rtb-b', 'allocation': 'eipalloc-1',
                  'own': '70', 'other': '71', 'elastic': '72', 'priority': '200', 'device': 'eth0',
                  'group': 'set high-availability vrrp group acceptance'}

        def rendered(script, command):
            text = (HERE / 'router' / script).read_text().partition(f'{command} <<END\n')[2].partition('\nEND\n')[0]
            return re.sub(r'\$(\w+)', lambda match: values[match[1]], text)

        vrrp = json.loads(rendered('on-debian', 'vyos-aws-vipa commit'))['proposed']['vrrp']
        expected = []

        def walk(node, path):
            for key, value in node.items():
                if isinstance(value, dict) and value:
                    walk(value, [*path, key])
                else:
                    leaves = value if isinstance(value, list) else [] if value == {} else [value]
                    expected.extend([' '.join(['set high-availability vrrp', *path, key, leaf]) for leaf in leaves]
                                    or [' '.join(['set high-availability vrrp', *path, key])])

        walk({'group': vrrp['group']}, [])
        commands = rendered('on-vyos', 'cat >/run/acceptance-configure').splitlines()
        self.assertEqual(sorted(expected), sorted(command for command in commands if ' vrrp ' in command))

    def test_the_stand_in_refuses_what_cloudformation_refuses(self):
        for given, wanted in (({}, 'must have values'), ({'RouterSystem': 'beos'}, 'AllowedValues'), ({'Colour': 'red'}, 'do not exist')):
            given = ({'RouterImage': 'a', 'RouterSystem': 'debian', 'ClientImage': 'b'} if given else {}) | given
            with self.assertRaisesRegex(stand_in.Refused, wanted):
                stand_in.Stack('s', TEMPLATE, given)


class Whole(unittest.TestCase):
    """Runs the script to its end. Each test has a class of its own below, so that they can run side by side."""

    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.report = pathlib.Path(self.directory.name, 'report')

    def start(self, *arguments, simulate=()):
        settings = [word for setting in simulate for word in ('--simulate', setting)]

        def take_signals():
            # nohup and shells ignore some for what they start.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)

        return subprocess.Popen(
            [sys.executable, ROOT / 'scripts/accept-on-aws', '--against', 'simulator', '--yes', '--report', self.report, *arguments,
             *settings], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            preexec_fn=take_signals)

    def finish(self, process, code):
        output, _ = process.communicate(timeout=500)
        self.assertEqual(process.returncode, code, output)
        self.output = output
        return json.loads((self.report / 'report.json').read_text())

    def interrupt_at(self, process, line, number):
        """Sends a signal once the line was printed; returns what was printed until then."""
        seen = ''
        for text in process.stdout:
            seen += text
            if line in text:
                process.send_signal(number)
                return seen
        self.fail(f'{line!r} was not printed:\n{seen}')

    def calls_now(self, process, operation):
        """Whether the process has a child that makes this call."""
        for children in pathlib.Path(f'/proc/{process.pid}/task').glob('*/children'):
            try:
                lines = [pathlib.Path(f'/proc/{child}/cmdline').read_bytes() for child in children.read_text().split()]
            except OSError:
                # One has ended.
                continue
            if any(operation.encode() in line.split(b'\0') for line in lines):
                return True
        return False

    def calls(self):
        """Service and operation of every call, in their order."""
        names = sorted(path.name for path in (self.report / 'answers').glob('*'))
        return [tuple(name.removesuffix('.json').split('-', 2)[1:]) for name in names]

    def verdicts(self, report):
        return {each['name']: each['verdict'] for each in report['assumptions']}


class Confirmed(Whole):
    def test_a_whole_run_confirms_measures_and_deletes(self):
        deb = pathlib.Path(self.directory.name, 'vyos-aws-vipa_1_amd64.deb')
        deb.write_bytes(b'a package')
        renewed = 'role-keys={"valid-seconds": 3000, "renewed-seconds-before-expiry": 2998}'
        report = self.finish(self.start('--deb', deb, '--endpoint', simulate=[renewed, 'claim-answers="first-listed"']), 0)
        self.assertEqual(self.verdicts(report), {name: 'confirmed' for name, _, _ in assumptions.CHECKS}, self.output)
        detail = next(each['detail'] for each in report['assumptions'] if each['name'] == 'acknowledged-claim')
        self.assertIn('answers did not list', detail)
        scenarios = ['power off', 'power on again', 'link cut by security group', 'link whole again', 'split-brain by security group',
                     'split-brain heals']
        self.assertEqual(list(dict.fromkeys(each['scenario'] for each in report['failovers'])), scenarios)
        for each in report['failovers']:
            routers = ['router1', 'router2'] if scenarios.index(each['scenario']) % 2 == 0 else ['router2', 'router1']
            self.assertEqual([each['before'], each['after']], routers, each)
            # A takeover for want of advertisements takes at least three intervals of the stand-in's.
            if each['scenario'] in ('power off', 'link cut by security group'):
                self.assertGreater(each['outage'], 300, each)
            self.assertLess(each['outage'], 20_000, each)
        self.assertEqual(len(report['failovers']), 5 * len(scenarios))
        self.assertEqual((report['not-measured'], report['left']), ([], []))

        text = (self.report / 'report.txt').read_text()
        for shown in ('They say nothing about AWS', 'power off\n', 'Nothing is left in the account.', 'vyos-aws-vipa_1_amd64.deb'):
            self.assertIn(shown, text)
        picture = xml.etree.ElementTree.parse(self.report / 'report.svg').getroot()
        self.assertEqual(len(picture.findall('{http://www.w3.org/2000/svg}rect')), 1 + len(report['failovers']))
        self.assertIn('Simulator: no figures of AWS', ''.join(picture.itertext()))

        # Costs and permissions come before anything is made; every call is among the permissions.
        self.assertLess(self.output.index('USD an hour'), self.output.index('uploading the package'))
        for service, operation in self.calls():
            action = ''.join(part.capitalize() for part in operation.split('-'))
            self.assertIn(action, main.PERMISSIONS[service.removesuffix('api')])
        self.assertEqual(self.calls()[0], ('sts', 'get-caller-identity'))
        # The virtual addresses are reserved, and the reservation is gone at the end.
        (reserved,) = (self.report / 'answers').glob('*-ec2-create-subnet-cidr-reservation.json')
        answer = json.loads(reserved.read_text())
        self.assertIn('/26', json.dumps(answer))
        self.assertIn(('ec2', 'delete-subnet-cidr-reservation'), self.calls())
        # What verdicts refer to is there, and neither the presigned URL nor the program of the clients is in it.
        for each in report['assumptions']:
            for number in each['answers']:
                self.assertEqual(len(list((self.report / 'answers').glob(f'{number:04}-*'))), 1, each)
        kept = ''.join(path.read_text() for path in (self.report / 'answers').iterdir())
        for secret in ('X-Amz-Signature', 'def role_key'):
            self.assertNotIn(secret, kept)
        self.assertEqual({path.name for path in self.report.iterdir()}, {'answers', 'report.txt', 'report.json', 'report.svg'})


class Refuted(Whole):
    def test_the_other_settings_refute_each_assumption(self):
        report = self.finish(self.start('--only', 'assumptions', simulate=[
            'filter-value-limit=100', 'refuse-reassignment-to-same-interface=true', 'claim-answers="first-moves"',
            'batch="others-move"', 'imds-addresses="ascending"', 'clock-tolerance-seconds=100', 'idle-timeout-ms=3000',
            'deny-dry-runs-last=true', 'deny-claims-last=true', 'free-dry-runs=true', 'role-keys={"valid-seconds": 299, "renewed-seconds-before-expiry": 1}']), 1)
        self.assertEqual(self.verdicts(report), {name: 'refuted' for name, _, _ in assumptions.CHECKS}, self.output)
        self.assertEqual((report['failovers'], report['left']), ([], []))
        self.assertFalse([call for call in self.calls() if call[1] == 'stop-instances'])


class TrackedFlows(Whole):
    def test_where_security_groups_do_not_cut_the_routers_do(self):
        report = self.finish(self.start('--only', 'failovers', simulate=['security-groups-cut=no', 'cut-seconds=8']), 0)
        found = {(each['scenario'], each['after']) for each in report['failovers'] if each['outage'] is not None}
        self.assertLessEqual({('link cut by nftables', 'router2'), ('link cut by nftables, healed', 'router1'),
                              ('split-brain by nftables', 'router2'), ('split-brain by nftables, healed', 'router1')}, found, self.output)
        cut = [each for each in report['failovers'] if each['scenario'].endswith('by security group')]
        self.assertEqual({(each['outage'], each['counts'], each['detail']) for each in cut},
                         {(None, False, 'the security groups did not stop VRRP within 8 s')})
        self.assertEqual(report['not-measured'], [])


class Interrupted(Whole):
    def test_an_interrupt_while_the_stack_is_created_deletes_it(self):
        process = self.start('--only', 'failovers')
        deadline = time.monotonic() + 60
        while not (self.calls_now(process, 'create-stack') or ('cloudformation', 'create-stack') in self.calls()):
            self.assertLess(time.monotonic(), deadline, 'no call of create-stack')
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        report = self.finish(process, 130)
        self.assertEqual((report['left'], report['failovers']), ([], []))
        # The call was let finish, so that what it made is known.
        self.assertLess(self.calls().index(('cloudformation', 'create-stack')), self.calls().index(('cloudformation', 'delete-stack')))


    def test_a_terminal_that_is_gone_and_a_network_that_is_lost_leave_nothing(self):
        process = self.start('--only', 'assumptions', simulate=['lose-network=DeleteStack'])
        self.interrupt_at(process, 'waiting for the clients', signal.SIGHUP)
        process.stdout.close()
        self.assertEqual(process.wait(timeout=120), 130)
        report = json.loads((self.report / 'report.json').read_text())
        self.assertEqual((report['notes'], report['left']), (['The run was interrupted.'], []))
        self.assertGreater(self.calls().count(('cloudformation', 'delete-stack')), 1)

    def test_a_deletion_that_is_interrupted_says_what_is_left(self):
        process = self.start('--only', 'assumptions', simulate=['lose-network=DeleteStack'])
        self.interrupt_at(process, 'waiting for the clients', signal.SIGINT)
        for text in process.stdout:
            if 'trying again for' in text:
                break
        # The first is answered by a note, the second ends the deletion.
        process.send_signal(signal.SIGINT)
        for text in process.stdout:
            if 'interrupt once more' in text:
                break
        process.send_signal(signal.SIGINT)
        report = self.finish(process, 3)
        self.assertRegex(report['left'][0], '^stack arn:aws:cloudformation:')
        self.assertIn('arn:aws:cloudformation', (self.report / 'made.json').read_text())


class PartlyCreated(Whole):
    def test_a_stack_that_is_created_in_part_is_deleted(self):
        report = self.finish(self.start('--only', 'failovers', simulate=['fail-to-create=Far']), 3)
        self.assertRegex(report['notes'][0], 'The run failed: stack: CREATE_FAILED: Far: ')
        self.assertEqual(report['left'], [])
        self.assertIn(('ec2', 'terminate-instances'), self.calls())
        self.assertFalse((self.report / 'made.json').exists())


class Left(Whole):
    def test_what_cannot_be_deleted_is_named(self):
        process = self.start('--only', 'assumptions', simulate=['fail-to-delete=Vpc'])
        self.interrupt_at(process, 'confirmed  A call takes', signal.SIGINT)
        report = self.finish(process, 3)
        self.assertEqual(report['notes'], ['The run was interrupted.'])
        self.assertEqual(self.verdicts(report)['filter-values'], 'confirmed')
        self.assertLess(len(report['assumptions']), len(assumptions.CHECKS))
        left = '\n'.join(report['left'])
        self.assertRegex(left, r'stack arn:aws:cloudformation:\S+: stack: DELETE_FAILED: Vpc')
        self.assertRegex(left, r'to try again: scripts/accept-on-aws --delete \S+/report')
        self.assertIn('Left in the account:', self.output)
        self.assertIn('arn:aws:cloudformation', (self.report / 'made.json').read_text())

    def test_with_keep_all_is_left_and_the_command_that_deletes_it_is_told(self):
        process = self.start('--only', 'assumptions', '--keep')
        self.interrupt_at(process, 'waiting for the clients', signal.SIGINT)
        report = self.finish(process, 130)
        self.assertNotIn(('cloudformation', 'delete-stack'), self.calls())
        self.assertRegex(report['left'][0], r'because of --keep; to delete it: scripts/accept-on-aws .*--delete \S+/report')


class Arguments(unittest.TestCase):
    def run_script(self, *arguments, answer=''):
        done = subprocess.run([sys.executable, ROOT / 'scripts/accept-on-aws', *arguments], input=answer, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def test_wrong_arguments_are_refused_before_anything_is_made(self):
        with tempfile.TemporaryDirectory() as directory:
            pathlib.Path(directory, 'file').touch()
            for arguments, wanted in (
                    ((), 'failovers need --deb'), (('--deb', '/nonexistent'), 'is no file'),
                    (('--simulate', 'a=1', '--only', 'assumptions'), '--simulate needs'), (('--delete', directory), 'no made.json'),
                    (('--against', 'simulator', '--report', directory), 'is not empty')):
                code, output = self.run_script(*arguments)
                self.assertEqual(code, 2, output)
                self.assertIn(wanted, output)

    def account(self, directory, *arguments, version='aws-cli/2.30.0 Python/3.13', account='123456789012'):
        """Runs the script with a program in the place of the AWS CLI, which has one answer to everything."""
        program = pathlib.Path(directory, 'bin/aws')
        program.parent.mkdir(exist_ok=True)
        answer = json.dumps({'SkipOsShutdown': True, 'Account': account, 'Arn': 'arn:aws:iam::1:user/o'})
        program.write_text(f"#!/bin/sh\ncase $1 in --version) echo '{version}' ;; *) echo '{answer}' ;; esac\n")
        program.chmod(0o755)
        environment = os.environ | {'PATH': f'{program.parent}:{os.environ["PATH"]}', 'AWS_REGION': 'eu-west-1'}
        done = subprocess.run([sys.executable, ROOT / 'scripts/accept-on-aws', *arguments], input='', capture_output=True, text=True,
                              env=environment, cwd=directory)
        return done.returncode, done.stdout + done.stderr

    def test_an_old_client_is_refused_before_anything_is_made(self):
        with tempfile.TemporaryDirectory() as directory:
            for version, wanted in (('aws-cli/1.46.3', 2), ('', 2), ('aws-cli/2.30.0', 0)):
                code, output = self.account(directory, '--only', 'assumptions', '--report', f'report{version[8:9]}', version=version)
                self.assertEqual(code, wanted, output)
                self.assertIn('it needs version 2' if wanted else 'Create the stack in account 123456789012?', output)

    def test_only_the_account_and_region_of_the_run_are_searched_for_what_is_left(self):
        """Elsewhere the stack is not found, and would seem to be deleted."""
        with tempfile.TemporaryDirectory() as directory:
            made = pathlib.Path(directory, 'made.json')
            made.write_text(json.dumps({'account': '123456789012', 'region': 'eu-west-1', 'stack': 's'}))
            for account, region in (('999999999999', 'eu-west-1'), ('123456789012', 'us-east-1')):
                code, output = self.account(directory, '--delete', '.', '--region', region, account=account)
                self.assertEqual(code, 2, output)
                self.assertIn('is of account 123456789012, region eu-west-1', output)
                self.assertTrue(made.exists())

    def test_nothing_is_made_without_a_yes(self):
        with tempfile.TemporaryDirectory() as directory:
            report = pathlib.Path(directory, 'report')
            for answer in ('no\n', ''):
                code, output = self.run_script('--against', 'simulator', '--report', report, answer=answer)
                self.assertEqual(code, 0, output)
                self.assertIn('Nothing was made.', output)
                self.assertEqual([path.name for path in (report / 'answers').iterdir()], ['0001-sts-get-caller-identity.json'])
                for path in (report / 'answers').iterdir():
                    path.unlink()
                (report / 'answers').rmdir()


if __name__ == '__main__':
    unittest.main()
