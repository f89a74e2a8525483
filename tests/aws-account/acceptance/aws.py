"""Calls of the AWS CLI. Every answer is kept as it came."""

import contextlib
import datetime
import json
import os
import re
import signal
import subprocess
import time


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP."""


class Interrupts:
    """Raises `Interrupted` before a call and while the program waits, never within a call or before its answer is recorded:
    what was made is always known."""

    def __init__(self):
        self.arrived, self.deleting, self.waits = 0, False, False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup ignores SIGHUP.
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self.arrive)

    def arrive(self, number, frame):
        self.arrived += 1
        if self.deleting and self.arrived == 1:
            note = 'deleting what was made; interrupt once more to stop, and to see what is left'
        else:
            note = '' if self.waits else 'interrupted; waiting for the call that is under way'
        # Not by print, which the signal may have interrupted. The terminal may be gone.
        with contextlib.suppress(OSError):
            os.write(2, f'{note}\n'.encode())
        if self.waits:
            self.check()

    def check(self):
        if self.arrived > int(self.deleting):
            raise Interrupted

    @contextlib.contextmanager
    def waiting(self):
        """What is done in this context can be interrupted at any point."""
        self.waits = True
        try:
            self.check()
            yield
        finally:
            self.waits = False

    def sleep(self, seconds):
        with self.waiting():
            time.sleep(seconds)

    def now_deleting(self):
        self.deleting, self.arrived = True, 0


NOT_ABOUT_THE_CALL = re.compile('Unauthorized|AccessDenied|AuthFailure|Token|Credential|Expired|RequestLimitExceeded|Throttl|'
                                'Unavailable|Internal')


class AwsError(Exception):
    """A call that AWS or the AWS CLI refused. Without a code, no answer of AWS came."""

    def __init__(self, call, code, message):
        super().__init__(f'{call}: {code}: {message}' if code else f'{call}: {message}')
        self.code, self.message = code, message

    def is_verdict(self):
        """Whether AWS judged the call itself: not its sender, and not the rate of calls."""
        return self.code is not None and not NOT_ABOUT_THE_CALL.search(self.code)


class Aws:
    """`aws SERVICE OPERATION …`, whose answers go to numbered files in a directory."""

    # What can be sent again when no answer came.
    REPEATABLE = ('describe', 'get', 'delete', 'terminate', 'disassociate', 'modify', 'start', 'stop')

    def __init__(self, program, answers, region, environment, interrupts, times, say, endpoint=None):
        self.interrupts, self.program, self.answers, self.region = interrupts, program, answers, region
        self.times, self.say = times, say
        self.environment = environment | {'AWS_PAGER': '', 'AWS_DEFAULT_OUTPUT': 'json', 'AWS_CLI_AUTO_PROMPT': 'off'}
        self.endpoint = ['--endpoint-url', endpoint] if endpoint else []
        # --delete continues the numbers of the run.
        self.number = max((int(path.name[:4]) for path in answers.iterdir()), default=0)
        # Texts that must not be kept, and what stands for them.
        self.hidden = {}

    def __call__(self, service, operation, *arguments):
        deadline, said = time.monotonic() + self.times.patience, False
        while True:
            try:
                return self.ask(service, operation, [str(argument) for argument in arguments])
            except AwsError as error:
                # As botocore words a connection that cannot be made, or that ends.
                lost = error.code is None and re.search('(endpoint|proxy) URL', error.message)
                if not lost or operation.split('-')[0] not in self.REPEATABLE or time.monotonic() > deadline:
                    raise
                if not said:
                    self.say(f'{error}; trying again for {self.times.patience} s')
                    said = True
            self.interrupts.sleep(self.times.poll)

    def ask(self, service, operation, arguments):
        self.interrupts.check()
        began, clock = datetime.datetime.now(datetime.timezone.utc), time.monotonic()
        done = self.run('--output', 'json', service, operation, *arguments)
        try:
            answer = json.loads(done.stdout or '{}')
        except json.JSONDecodeError:
            answer = done.stdout
        self.keep(service, operation, arguments, began, time.monotonic() - clock, done, answer)
        if done.returncode:
            error = re.search(r'An error occurred \(([\w.]+)\)[^:]*: (.*)', done.stderr, re.S)
            code, message = error.groups() if error else (None, done.stderr)
            raise AwsError(f'aws {service} {operation}', code, ' '.join(message.split()) or f'exit code {done.returncode}')
        return answer

    def run(self, *arguments):
        # A session of its own: the terminal's Ctrl-C is not for it.
        return subprocess.run(
            [self.program, '--region', self.region, '--cli-connect-timeout', '10', *self.endpoint, *arguments], env=self.environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True)

    def keep(self, service, operation, arguments, began, seconds, done, answer):
        self.number += 1
        text = json.dumps({
            'command': ['aws', service, operation, *arguments], 'began': began.isoformat(), 'seconds': round(seconds, 3),
            'exit-code': done.returncode, 'answer': answer, 'errors': done.stderr}, indent=2)
        for secret, name in self.hidden.items():
            # As it stands in JSON, and in JSON within JSON.
            for form in (json.dumps(json.dumps(secret)[1:-1])[1:-1], json.dumps(secret)[1:-1]):
                text = text.replace(form, name)
        (self.answers / f'{self.number:04}-{service}-{operation}.json').write_text(text + '\n')

    def output(self, service, operation, *arguments):
        """What a command prints that is not JSON, and that is not kept."""
        self.interrupts.check()
        done = self.run(service, operation, *map(str, arguments))
        if done.returncode:
            raise AwsError(f'aws {service} {operation}', None, done.stderr.strip())
        return done.stdout.strip()


def wait_for_state(aws, instances, state, within, poll):
    """Waits until the instances are `stopped`, `terminated` …"""
    deadline = time.monotonic() + within
    while True:
        found = aws('ec2', 'describe-instances', '--instance-ids', *instances)
        states = {each['State']['Name'] for reservation in found['Reservations'] for each in reservation['Instances']}
        if states == {state}:
            return
        if time.monotonic() > deadline:
            raise AwsError('aws ec2 describe-instances', None, f'{" ".join(instances)}: {", ".join(sorted(states))} after {within} s')
        aws.interrupts.sleep(poll)
