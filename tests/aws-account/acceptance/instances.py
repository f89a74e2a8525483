"""Programs that run on the stack's instances, by SSM Run Command."""

import json
import pathlib
import shlex
import time

from .aws import AwsError

PROGRAM = (pathlib.Path(__file__).parents[1] / 'on_instance.py').read_text()


class Command:
    """A command that was sent to an instance."""

    def __init__(self, instance, answer):
        self.instance, self.id = instance, answer['Command']['CommandId']

    def invocation(self):
        try:
            return self.instance.aws('ssm', 'get-command-invocation', '--command-id', self.id, '--instance-id', self.instance.id)
        except AwsError as error:
            # For a moment after it was sent.
            if error.code == 'InvocationDoesNotExist':
                return {'Status': 'Pending'}
            raise

    def wait_until(self, states, within):
        deadline = time.monotonic() + within
        while True:
            found = self.invocation()
            if found['Status'] in states:
                return found
            if time.monotonic() > deadline:
                raise AwsError(f'command on {self.instance.name}', found['Status'], f'not {" or ".join(states)} within {within} s')
            self.instance.aws.interrupts.sleep(self.instance.poll)

    def began(self, within):
        """Waits until it runs."""
        self.wait_until(('InProgress', 'Success', 'Failed', 'TimedOut', 'Cancelled'), within)

    def result(self, within):
        """What it printed, as JSON."""
        found = self.wait_until(('Success', 'Failed', 'TimedOut', 'Cancelled'), within)
        if found['Status'] != 'Success':
            errors = found.get('StandardErrorContent', '').strip()
            last = errors.splitlines()[-1] if errors else 'nothing on standard error'
            raise AwsError(f'command on {self.instance.name}', found['Status'], last)
        try:
            return json.loads(found['StandardOutputContent'])
        except json.JSONDecodeError as error:
            # SSM keeps 24,000 characters.
            raise AwsError(f'command on {self.instance.name}', None, f'its output is incomplete: {error}') from error


class Instance:
    """An instance that takes commands."""

    def __init__(self, aws, instance, name, poll):
        self.aws, self.id, self.name, self.poll = aws, instance, name, poll

    def send(self, *lines, seconds):
        return Command(self, self.aws(
            'ssm', 'send-command', '--instance-ids', self.id, '--document-name', 'AWS-RunShellScript', '--comment',
            # A command that arrives late would run in another scenario.
            'vyos-aws-vipa acceptance', '--timeout-seconds', 60, '--parameters',
            json.dumps({'commands': list(lines), 'executionTimeout': [str(int(seconds) + 60)]})))

    def start(self, verb, *arguments, seconds=30):
        """Starts on_instance.py, which comes along."""
        words = ' '.join(shlex.quote(str(argument)) for argument in (verb, *arguments))
        self.aws.hidden[PROGRAM] = '<on_instance.py>'
        return self.send(f"python3 - {words} <<'ON_INSTANCE'", PROGRAM, 'ON_INSTANCE', seconds=seconds)

    def run(self, verb, *arguments):
        return self.start(verb, *arguments).result(within=60)


def wait_until_online(aws, instances, within, poll):
    """Waits until SSM reaches the instances; returns those that it does not reach."""
    deadline = time.monotonic() + within
    while True:
        try:
            found = aws('ssm', 'describe-instance-information', '--filters', 'Key=InstanceIds,Values='
                        + ','.join(instance.id for instance in instances))['InstanceInformationList']
        except AwsError as error:
            # SSM does not have one of them yet.
            if error.code != 'InvalidInstanceId':
                raise
            found = []
        online = {each['InstanceId'] for each in found if each['PingStatus'] == 'Online'}
        missing = [instance for instance in instances if instance.id not in online]
        if not missing or time.monotonic() > deadline:
            return missing
        aws.interrupts.sleep(poll)
