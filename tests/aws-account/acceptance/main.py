"""The run as a whole: plan, question, stack, checks, failovers, deletion, report."""

import argparse
import datetime
import json
import os
import pathlib
import shlex
import sys
import time
import traceback

from .assumptions import Checks
from .aws import Aws, AwsError, Interrupted, Interrupts
from .failovers import Failovers
from .instances import Instance, wait_until_online
from .report import Report
from .stack import Stack
from .targets import Account, Simulator, Unusable

DEBIAN = '/aws/service/debian/release/12/latest/amd64'
AMAZON_LINUX = '/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64'

COSTS = '''\
Costs, while the stack exists: {instances}, their disks of 8 GB and 6 public IPv4 addresses{endpoint}.
That is about {price:.2f} USD an hour in us-east-1{more}, and up to twice as much elsewhere; images from the Marketplace,
such as VyOS's, have a price of their own. AWS bills it to this account. A run takes about {minutes} minutes.
'''

# Every call that this program makes, and those that CloudFormation makes for it. A test compares the former.
PERMISSIONS = {
    'cloudformation': ['CreateStack', 'DescribeStacks', 'DescribeStackResources', 'DeleteStack'],
    'ec2': [
        'AssignPrivateIpAddresses', 'AssociateAddress', 'CreateSubnetCidrReservation', 'DeleteSubnetCidrReservation',
        'DescribeAddresses', 'DescribeImages', 'DescribeInstances', 'DescribeNetworkInterfaces', 'DisassociateAddress',
        'GetConsoleOutput', 'GetSubnetCidrReservations', 'ModifyNetworkInterfaceAttribute', 'StartInstances', 'StopInstances', 'TerminateInstances', 'UnassignPrivateIpAddresses',
        'and to create and delete VPC, subnets, routes, security groups, interfaces, Elastic IPs, launch template, instances'],
    'iam': ['to create and delete two roles with inline policies and their instance profiles, and PassRole'],
    's3': ['CreateBucket', 'PutObject', 'GetObject', 'DeleteObject', 'DeleteBucket'],
    'ssm': ['SendCommand', 'GetCommandInvocation', 'DescribeInstanceInformation', 'GetParameter'],
    'sts': ['GetCallerIdentity'],
}


def arguments():
    parser = argparse.ArgumentParser(
        prog='scripts/accept-on-aws', formatter_class=argparse.RawDescriptionHelpFormatter,
        description='''\
Accepts vyos-aws-vipa in an AWS account: creates a small stack of two routers
and two clients, checks each assumption about EC2 and IMDS, runs failovers and
measures them from the clients, writes a report, and deletes everything it made.

It first prints costs and permissions, and asks. It needs Python 3.10 and
version 2 of the AWS CLI, with the account's credentials.''',
        epilog='''\
Exit code: 0 if no assumption is refuted and every failover ended, 1 if not,
2 for wrong arguments or a program that is missing, 3 if it could not finish or
something is left in the account, 130 if interrupted (and everything is deleted).''')
    parser.add_argument('--region', help="the region (default: the AWS CLI's)")
    parser.add_argument('--ami', metavar='ID', help='image of the routers: Debian 12 (default: the newest), or VyOS 1.4 or later')
    parser.add_argument('--instance-type', default='t3.small', metavar='TYPE',
                        help='of the routers (default: t3.small); x86_64, with room for four private addresses on an interface')
    parser.add_argument('--deb', type=pathlib.Path, metavar='FILE', help='the package for the routers (scripts/build-deb makes it)')
    parser.add_argument('--endpoint', action='store_true', help='reach EC2 by an interface endpoint')
    parser.add_argument('--only', choices=['assumptions', 'failovers'], help='one of the two parts')
    parser.add_argument('--report', type=pathlib.Path, metavar='DIR', help='a new directory for report and raw answers')
    parser.add_argument('--keep', action='store_true', help='do not delete the stack; --delete does it later')
    parser.add_argument('--delete', type=pathlib.Path, metavar='DIR', help='delete what a run with this --report left, and end')
    parser.add_argument('--yes', action='store_true', help='do not ask')
    parser.add_argument('--against', choices=['simulator'], help='run against tests/simulator, without an account')
    parser.add_argument('--simulate', action='append', default=[], metavar='SETTING=JSON',
                        help="a setting of the simulator's world, such as batch='\"others-move\"', or of its stand-ins:"
                        ' security-groups-cut=no, fail-to-create=Router2, fail-to-delete=Vpc, lose-network=DeleteStack, cut-seconds=8')
    options = parser.parse_args()
    if options.simulate and not options.against:
        parser.error('--simulate needs --against simulator')
    if options.delete and options.against:
        parser.error('--delete is for an account')
    if options.delete:
        made = options.delete / 'made.json'
        if not made.exists():
            parser.error(f'{options.delete} has no made.json: nothing is known to be left')
        options.region = options.region or json.loads(made.read_text()).get('region')
    if options.deb and not options.deb.is_file():
        parser.error(f'{options.deb} is no file')
    if not (options.deb or options.delete or options.against or options.only == 'assumptions'):
        parser.error('failovers need --deb (scripts/build-deb makes the package)')
    options.routers = options.only != 'assumptions'
    return options


def out(text, **arguments):
    """Prints. A terminal that is gone does not end the program: the stack has to be deleted."""
    try:
        print(text, flush=True, **arguments)
    except OSError:
        sys.stdout = open(os.devnull, 'w')


def say(text):
    out(f'{datetime.datetime.now():%H:%M:%S}  {text}')


class Run:
    """One run, and what has to be known to end it."""

    def __init__(self, options, target, directory, interrupts):
        self.options, self.target, self.directory, self.interrupts = options, target, directory, interrupts
        answers = directory / 'answers'
        answers.mkdir(parents=True, exist_ok=True)
        self.aws = Aws(target.program, answers, target.region, target.environment, interrupts, target.times, say, target.endpoint)
        self.stack = Stack(self.aws, directory, target.times, say)

    def identify(self):
        who = self.aws('sts', 'get-caller-identity')
        here = {'account': who['Account'], 'region': self.target.region}
        made = {name: self.stack.made.get(name, value) for name, value in here.items()}
        if made != here:
            # Where the stack is not found, it would seem to be deleted.
            raise Unusable(f'{self.directory} is of account {made["account"]}, region {made["region"]}; these credentials are'
                           f' for account {here["account"]}, region {here["region"]}')
        self.stack.made |= here
        return who

    def ask(self, who):
        """Prints what a run costs and needs; returns whether the operator agrees."""
        kind, routers = self.options.instance_type, self.options.routers
        priced = 2 + 2 * (routers and kind == 't3.small')
        hours = priced * 0.022 + 6 * 0.005 + (0.01 if self.options.endpoint else 0)
        out(f'Account {who["Account"]}, region {self.target.region}, as {who["Arn"]}\n')
        out(COSTS.format(instances='2 clients (t3.small)' + (f', 2 routers ({kind})' if routers else ''), price=hours,
                         more='' if kind == 't3.small' or not routers else ' without the routers', minutes=45 if routers else 15,
                         endpoint=' and an interface endpoint' if self.options.endpoint else ''))
        out('Permissions that it needs:')
        for service, actions in PERMISSIONS.items():
            out(f'  {service}: {", ".join(actions)}')
        out("The region's quotas need room for 4 more Elastic IPs and one more VPC.")
        if self.options.only != 'failovers':
            out('One check uses up the rate limit of ec2:CreateRoute in this account and region for about half a minute.')
        out('')
        if self.options.yes:
            return True
        out(f'Create the stack in account {who["Account"]}? [y/N] ', end='')
        with self.interrupts.waiting():
            answer = sys.stdin.readline()
        if not answer:
            out('no answer; use --yes to run without the question')
        return answer.strip().lower() in ('y', 'yes')

    def images(self):
        parameter = lambda name: self.aws('ssm', 'get-parameter', '--name', name)['Parameter']['Value']
        router, client = self.options.ami or parameter(DEBIAN), parameter(AMAZON_LINUX)
        found = self.aws('ec2', 'describe-images', '--image-ids', router)['Images']
        name = found[0].get('Name', '') if found else ''
        system = 'vyos' if 'vyos' in f'{name} {found[0].get("Description", "") if found else ""}'.lower() else 'debian'
        return router, client, system, name

    def perform(self, report):
        router, client, system, name = self.images()
        report.about |= {'routers': f'{name} ({router}), {self.options.instance_type}' if self.options.routers else 'none',
                         'EC2 by': 'an interface endpoint' if self.options.endpoint else 'the internet gateway'}
        parameters = {'RouterImage': router, 'RouterSystem': system, 'ClientImage': client, 'Network': '10.99', 'EchoPort': 4070,
                      'WithRouters': 'yes' if self.options.routers else 'no', 'RouterType': self.options.instance_type,
                      'InterfaceEndpoint': 'yes' if self.options.endpoint else 'no'} | self.target.parameters
        if self.options.routers and self.options.deb:
            say('uploading the package')
            parameters['BundleUrl'] = self.stack.bundle(self.options.deb)
        say('creating the stack')
        self.stack.create(parameters)
        times = self.target.times
        near, far = (Instance(self.aws, self.stack[name], f'{name.lower()} client', times.poll) for name in ('Near', 'Far'))
        say('waiting for the clients')
        missing = wait_until_online(self.aws, [near, far], within=times.ready, poll=times.poll)
        if missing:
            raise AwsError('SSM', None, f'it does not reach the {" and the ".join(each.name for each in missing)}')
        checks = failovers = None
        try:
            if self.options.only != 'failovers':
                checks = Checks(self.aws, self.stack, near, times, say)
                report.verdicts = checks.verdicts
                checks.run()
            if self.options.routers:
                routers = [Instance(self.aws, self.stack[name], name.lower(), times.poll) for name in ('Router1', 'Router2')]
                failovers = Failovers(self.aws, self.stack, {'near': near, 'far': far}, routers, system, times, say)
                report.measurements, report.not_measured = failovers.measurements, failovers.not_measured
                if system == 'vyos':
                    report.notes.append('VyOS has no SSM agent: nothing was run on the routers, and of their logs only the console is kept.')
                failovers.run()
                self.keep_logs(routers, system)
        finally:
            # Also what a part of the run can tell. After an interrupt this raises it again.
            if checks:
                checks.finish()

    def keep_logs(self, routers, system):
        """The routers' own view, as raw answers. A measurement does not need it."""
        for router in routers:
            try:
                # What the boot scripts wrote.
                self.aws('ec2', 'get-console-output', '--instance-id', router.id, '--latest')
                if system == 'debian':
                    command = router.send('vyos-aws-vipa show status', 'journalctl --boot --no-pager --output short-precise '
                                          '--unit vyos-aws-vipa --unit keepalived | tail -c 20000', seconds=30)
                    command.wait_until(('Success', 'Failed', 'TimedOut'), within=90)
            except AwsError as error:
                say(f'{router.name}: no log: {error}')

    def end(self, report):
        """Deletes what was made; what is left goes into the report."""
        again = f'scripts/accept-on-aws --delete {shlex.quote(str(self.directory))}'
        made = [f'{what} {self.stack.made[what]}' for what in ('stack', 'bucket') if what in self.stack.made]
        if not made:
            return
        if self.options.keep and not self.options.delete:
            report.left = [f'all of it, because of --keep; to delete it: {again}']
            return
        self.interrupts.now_deleting()
        say('deleting everything')
        try:
            report.left = self.stack.delete()
            resources = self.stack.reasons() if report.left and 'stack' in self.stack.made else ''
            if resources:
                report.left.append(f'resources that could not be deleted: {resources}')
        except Interrupted:
            report.left = made
        except Exception:
            report.left = [*made, traceback.format_exc()]
        if report.left:
            report.left.append(f'to try again: {again}')


def main():
    options = arguments()
    interrupts = Interrupts()
    target = None
    try:
        now = datetime.datetime.now(datetime.timezone.utc)
        directory = options.delete or options.report or pathlib.Path(f'accept-on-aws-{now:%Y%m%d-%H%M%S}')
        if not options.delete and directory.exists() and any(directory.iterdir()):
            raise Unusable(f'{directory} is not empty')
        target = Simulator(options) if options.against else Account(options)
        return run(options, target, directory, interrupts, now)
    except Unusable as missing:
        print(f'scripts/accept-on-aws: {missing}', file=sys.stderr)
        return 2
    finally:
        if target:
            target.close()


def run(options, target, directory, interrupts, now):
    this = Run(options, target, directory, interrupts)
    report = Report({'date': f'{now:%Y-%m-%d}', 'region': target.region, 'against': target.name,
                     'package': options.deb.name if options.deb else 'none'})
    code, began = 0, time.monotonic()
    try:
        who = this.identify()
        if not options.delete and not this.ask(who):
            out('Nothing was made.')
            return 0
    except Interrupted:
        out('interrupted')
        return 130
    except AwsError as error:
        out(error)
        return 3
    try:
        if not options.delete:
            this.perform(report)
    except Interrupted:
        say('interrupted')
        report.notes.append('The run was interrupted.')
        code = 130
    except AwsError as error:
        say(f'failed: {error}')
        report.notes.append(f'The run failed: {error}')
        code = 3
    except Exception as error:
        # A fault of this program leaves nothing in the account either.
        say(traceback.format_exc())
        report.notes.append(f'The run failed: {error!r}')
        code = 3
    this.end(report)
    if options.delete:
        out('\n'.join(report.left) or 'Nothing is left.')
    else:
        report.about['took'] = f'{(time.monotonic() - began) / 60:.0f} minutes'
        out(f'\n{report.text()}')
        report.write(directory)
        out(f'Report and raw answers: {directory}')
    if report.left and not options.keep:
        code = 3
    return code or int(not report.holds())
